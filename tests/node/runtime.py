"""containerd, in a separate folder, with the configuration that the kubelet needs."""

import shutil
import subprocess
import time
from pathlib import Path

from tests.cluster.process import Server
from tests.image.build import PAUSE
from tests.node.network import PLUGINS

READY_LIMIT_S = 30.0
IMPORT_LIMIT_S = 300.0
POLL_S = 0.1

CONFIGURATION = """
version = 2
root = "{folder}/root"
state = "{folder}/state"

[grpc]
  address = "{socket}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Without it every sandbox dies where CAP_SYS_RESOURCE is withheld.
  restrict_oom_score_adj = true
  disable_apparmor = true

[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "{registries}"

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{plugins}"
  conf_dir = "{cni}"
"""


class Containerd:
    """One containerd; its containers continue without it unless `end_containers` runs first."""

    def __init__(self, folder: Path, cni: Path) -> None:
        self._folder = folder
        self.socket = folder / "containerd.sock"
        self.registries = folder / "registries"
        file = folder / "containerd.toml"
        file.write_text(
            CONFIGURATION.format(
                folder=folder,
                socket=self.socket,
                pause=PAUSE,
                plugins=PLUGINS,
                cni=cni,
                registries=self.registries,
            )
        )
        command = [_program("containerd"), "--config", str(file)]
        self.server = Server("containerd", command, log=folder / "containerd.log")

    def start(self) -> None:
        """Start and wait until it answers."""
        self.server.start()
        deadline_at = time.monotonic() + READY_LIMIT_S
        while self._ctr("version", check=False).returncode != 0:
            if not self.server.alive or time.monotonic() > deadline_at:
                raise self.server.failed("did not answer")
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Kill all containers, then containerd, and delete the images' files (0.7 GB)."""
        if self.server.alive:
            for container in self._ctr("task", "list", "--quiet").stdout.split():
                self.kill(container)
        self.server.kill()
        _unmount_below(self._folder)
        shutil.rmtree(self._folder / "root", ignore_errors=True)

    def import_image(self, archive: Path) -> None:
        self._ctr("images", "import", str(archive), limit_s=IMPORT_LIMIT_S)

    def tag(self, image: str, name: str) -> None:
        """Give an image one more name."""
        self._ctr("images", "tag", image, name)

    def kill(self, container: str) -> None:
        """Kill a container's processes, as the node's kernel would when memory is short."""
        self._ctr("task", "kill", "--signal", "SIGKILL", "--all", container, check=False)

    def _ctr(
        self, *arguments: str, limit_s: float = READY_LIMIT_S, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [_program("ctr"), f"--address={self.socket}", "--namespace=k8s.io", *arguments],
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=check,
        )


def _unmount_below(folder: Path) -> None:
    """Unmount everything in `folder`, volumes and container roots, in our mount namespace."""
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    below = sorted((point for point in points if point.startswith(f"{folder}/")), reverse=True)
    if below:
        subprocess.run(
            ["umount", "--lazy", *below], capture_output=True, timeout=READY_LIMIT_S, check=True
        )


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"no {name} on PATH")
    return found
