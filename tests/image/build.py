"""Base, image, archive: three steps with buildah, each done again only when it must be."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler import __version__
from tests.assets.build import sole_builder
from tests.assets.locate import cache_dir

SUITE = "bookworm"
BASE = f"localhost/python-base:{SUITE}"
IMAGE = f"localhost/runner-token-reconciler:{__version__}"
PAUSE = "localhost/pause:1"
NEEDED = ("buildah", "debootstrap")
CERTIFICATES = Path("/etc/ssl/certs")
INCLUDED = ("python3", "python3-venv", "ca-certificates")

ROOT = Path(__file__).parents[2]

LIMIT_S = 900.0
"""A base takes 73 s and an image 60 s where nothing else runs."""

Say = Callable[[str], None]


class ImageError(Exception):
    """The image could not be built; the message says what to do about it."""


@dataclass(frozen=True, slots=True)
class Built:
    """What came out: sizes in bytes, as they lie on disk, unpacked."""

    archive: Path
    image_bytes: int
    base_bytes: int

    @property
    def own_bytes(self) -> int:
        """What we add to the base."""
        return self.image_bytes - self.base_bytes


def why_not() -> str:
    """Return "" where an image can be built, else what is missing."""
    if os.name != "posix" or os.geteuid() != 0:
        return "building the image needs root"
    missing = [name for name in NEEDED if shutil.which(name) is None]
    return f"no {' and no '.join(missing)} on PATH: install them" if missing else ""


def build(archive: Path, say: Say) -> Built:
    """Build the image and write it to `archive` (docker-archive).

    Raises:
        ImageError: A program is missing or failed; its own words are in the message.
    """
    if why := why_not():
        raise ImageError(why)
    with sole_builder(say):
        _make_base(say)
        say(f"{IMAGE}: building")
        _buildah(
            "build", "--isolation=chroot", "--network=host", "--quiet", f"--tag={IMAGE}",
            f"--build-arg=BUILD_BASE={BASE}", f"--build-arg=RUN_BASE={BASE}",
            f"--build-arg=VERSION={__version__}", f"--build-arg=REVISION={_revision()}",
            f"--volume={CERTIFICATES}:{CERTIFICATES}:ro", str(ROOT),
        )  # fmt: skip
        archive.parent.mkdir(parents=True, exist_ok=True)
        archive.unlink(missing_ok=True)
        _buildah("rmi", "--prune")  # what this build's tag was taken from
        _buildah("push", "--quiet", IMAGE, f"docker-archive:{archive}:{IMAGE}")
        return Built(archive, _size(IMAGE), _size(BASE))


def build_pause(archive: Path) -> None:
    """Write an image that sleeps, for the sandboxes of pods: our own files, another command."""
    container = _buildah("from", "--pull-never", IMAGE).strip()
    try:
        _buildah("config", '--entrypoint=["/bin/sleep", "infinity"]', "--cmd=", container)
        _buildah("commit", "--quiet", container, PAUSE)
    finally:
        _buildah("rm", container)
    archive.unlink(missing_ok=True)
    _buildah("push", "--quiet", PAUSE, f"docker-archive:{archive}:{PAUSE}")


def config_of(image: str = IMAGE) -> dict[str, Any]:
    """Return the `config` member of an image's OCI description."""
    described = json.loads(_buildah("inspect", "--type=image", image))
    config: dict[str, Any] = described["OCIv1"]["config"]
    return config


def _make_base(say: Say) -> None:
    """Make the base with Python and CA certificates, unless the cache has it."""
    if BASE in _buildah("images", "--format={{.Name}}:{{.Tag}}").split():
        return
    say(f"{BASE}: building with debootstrap (minutes)")
    folder = cache_dir() / "unfinished-base"
    try:
        _run("debootstrap", "--variant=minbase", f"--include={','.join(INCLUDED)}", SUITE,
             str(folder))  # fmt: skip
        for waste in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
            shutil.rmtree(folder / waste, ignore_errors=True)
        container = _buildah("from", "scratch").strip()
        try:
            _buildah("copy", "--quiet", container, str(folder), "/")
            _buildah("commit", "--quiet", "--rm", container, BASE)
        except ImageError:
            _buildah("rm", container)
            raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def root_of(image: str = IMAGE) -> Iterator[Path]:
    """Yield a copy of an image's root file system, which goes with the context."""
    container = _buildah("from", "--pull-never", image).strip()
    try:
        yield Path(_buildah("mount", container).strip())
    finally:
        _buildah("rm", container)


def _size(image: str) -> int:
    """Return the bytes of an image's files."""
    with root_of(image) as root:
        return sum(
            (Path(folder) / name).lstat().st_size
            for folder, _, names in os.walk(root)
            for name in names
        )


def _revision() -> str:
    """Return the commit that is built, marked where the tree has changes beside it."""
    described = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return described.stdout.strip() or "unknown"


def _buildah(*arguments: str) -> str:
    store = cache_dir().with_name("images")
    return _run(
        "buildah", f"--root={store}", f"--runroot={store}-run", "--storage-driver=vfs", *arguments
    )


def _run(*command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=ROOT
    )
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise ImageError(f"{command[0]} failed (exit {done.returncode}):\n{tail}")
    return done.stdout
