"""The parts of a one-node cluster, except the control plane, that run pods."""

import json
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.cluster.controlplane import ControlPlane
from tests.cluster.manifests import kubectl
from tests.cluster.process import Server
from tests.node import network
from tests.node.enforcer import enforcer
from tests.node.runtime import Containerd

NAME = "node-1"
READY_LIMIT_S = 90.0
POLL_S = 0.25

KUBELET = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "address": network.NODE,
    "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
    "authorization": {"mode": "AlwaysAllow"},
    "cgroupDriver": "cgroupfs",
    "cgroupsPerQOS": False,
    "enforceNodeAllocatable": [],
    "failCgroupV1": False,
    "failSwapOn": False,
    "localStorageCapacityIsolation": False,
    # The disk is the machine's; how full it is must not decide what a test sees.
    "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%"},
    "imageGCHighThresholdPercent": 100,
    # One image is imported under one name and pulled under another; by default the kubelet would
    # ask a registry for the imported name, too, as soon as it has pulled the image.
    "imagePullCredentialsVerificationPolicy": "NeverVerify",
}


class Node:
    """Controller manager, scheduler, containerd, kubelet, and enforcement of NetworkPolicies.

    Args:
        binaries: Name -> path, with those of the node.
        images: Archives that the node imports at its start; it can pull no image.
    """

    def __init__(
        self,
        binaries: Mapping[str, Path],
        control_plane: ControlPlane,
        folder: Path,
        *,
        images: Iterable[Path],
    ) -> None:
        self._images = images
        self._binaries = binaries
        self._plane = control_plane
        self._folder = folder
        self.kubeconfig = control_plane.kubeconfig(folder / "admin")
        self.runtime = Containerd(folder, network.set_up(folder))
        self.enforcer = enforcer(
            binaries["kube-router"],
            kubeconfig=self.kubeconfig,
            node_name=NAME,
            log=folder / "kube-router.log",
        )
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self.runtime.stop)
            self.runtime.start()
            for archive in self._images:
                self.runtime.import_image(archive)
            for server in (self._controller_manager(), self._scheduler(), self._kubelet()):
                stack.callback(server.kill)
                server.start()
            self._wait_ready()
            stack.callback(self.enforcer.kill)
            self.enforcer.start()  # it ends where it does not find its node
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl as admin; raises `AssertionError` with its output if it fails."""
        done = kubectl(*arguments, kubeconfig=self.kubeconfig)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def _controller_manager(self) -> Server:
        return self._server(
            "kube-controller-manager",
            f"--service-account-private-key-file={self._plane.account_key}",
            f"--root-ca-file={self._plane.ca_file}",
            "--leader-elect=false",
            "--secure-port=0",
        )

    def _scheduler(self) -> Server:
        return self._server("kube-scheduler", "--leader-elect=false", "--secure-port=0")

    def _kubelet(self) -> Server:
        logs = {"podLogsDir": str(self._folder / "pods")}
        endpoint = {"containerRuntimeEndpoint": f"unix://{self.runtime.socket}"}
        configuration = self._folder / "kubelet.json"
        configuration.write_text(json.dumps(KUBELET | logs | endpoint))
        return self._server(
            "kubelet",
            f"--config={configuration}",
            f"--root-dir={self._folder / 'kubelet'}",
            f"--cert-dir={self._folder / 'pki'}",
            f"--hostname-override={NAME}",
            f"--node-ip={network.NODE}",
        )

    def _server(self, name: str, *flags: str) -> Server:
        command = [str(self._binaries[name]), f"--kubeconfig={self.kubeconfig}", *flags]
        return Server(name, command, log=self._folder / f"{name}.log")

    def _wait_ready(self) -> None:
        """Wait for the node, and for the default ServiceAccount."""
        deadline_at = time.monotonic() + READY_LIMIT_S
        while True:
            asked = [
                kubectl(*words, kubeconfig=self.kubeconfig)
                for words in (
                    ("wait", "--for=condition=Ready", f"node/{NAME}", "--timeout=1s"),
                    ("get", "serviceaccount", "default"),
                )
            ]
            if all(done.returncode == 0 for done in asked):
                return
            if time.monotonic() > deadline_at:
                words = "\n".join(done.stderr for done in asked)
                log = (self._folder / "kubelet.log").read_text()[-3000:]
                raise AssertionError(f"the node is not ready: {words}\n{log}")
            time.sleep(POLL_S)
