"""Base, image, archive: three steps with buildah, each done again only when it must be."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from reconciler import __version__
from tests.assets.build import sole_builder
from tests.assets.locate import cache_dir
from tests.image.archive import pack

SUITE = "bookworm"
OWN_BASE = f"localhost/python-base:{SUITE}"
BASE = os.environ.get("BASE") or OWN_BASE
"""Any image with Python that buildah has or can pull; a release names it by its digest."""
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


def why_not() -> str:
    """Return "" where an image can be built, else what is missing."""
    if os.name != "posix" or os.geteuid() != 0:
        return "building the image needs root"
    missing = [name for name in NEEDED if shutil.which(name) is None]
    return f"no {' and no '.join(missing)} on PATH: install them" if missing else ""


def build(archive: Path, say: Say) -> None:
    """Build the image and write it to `archive` (OCI): the same bytes for one commit and base.

    Raises:
        ImageError: A program is missing or failed; its own words are in the message.
    """
    if why := why_not():
        raise ImageError(why)
    archive.parent.mkdir(parents=True, exist_ok=True)
    with sole_builder(say):
        _make_base(say)
        say(f"{IMAGE}: building")
        _buildah(
            "build", "--isolation=chroot", "--network=host", "--quiet", f"--tag={IMAGE}",
            f"--timestamp={committed_at_s()}",
            f"--build-arg=BUILD_BASE={BASE}", f"--build-arg=RUN_BASE={BASE}",
            f"--build-arg=VERSION={__version__}", f"--build-arg=REVISION={revision()}",
            f"--volume={CERTIFICATES}:{CERTIFICATES}:ro", str(ROOT),
        )  # fmt: skip
        _buildah("rmi", "--prune")  # what this build's tag was taken from
        with TemporaryDirectory(dir=archive.parent) as layout:
            _buildah("push", "--quiet", IMAGE, f"oci:{layout}:{IMAGE}")
            pack(Path(layout), archive)


def load(archive: Path) -> None:
    """Tag the archive's image as `IMAGE` in buildah's store, which all trees of this user share."""
    _buildah("pull", "--quiet", f"oci-archive:{archive}")


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
    config: dict[str, Any] = _inspect(image)["OCIv1"]["config"]
    return config


def base_digest() -> str:
    """Return the digest of the manifest of the base."""
    return str(_inspect(BASE)["FromImageDigest"])


def _inspect(image: str) -> dict[str, Any]:
    described: dict[str, Any] = json.loads(_buildah("inspect", "--type=image", image))
    return described


def _make_base(say: Say) -> None:
    """Make the base with Python and CA certificates, unless the cache has it or it is another's."""
    if BASE != OWN_BASE or BASE in _buildah("images", "--format={{.Name}}:{{.Tag}}").split():
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


def size(image: str) -> int:
    """Return the bytes of an image's files."""
    with root_of(image) as root:
        return sum(
            (Path(folder) / name).lstat().st_size
            for folder, _, names in os.walk(root)
            for name in names
        )


def revision() -> str:
    """Return the commit that is built, marked where the tree has changes beside it."""
    return _git("describe", "--always", "--dirty", "--abbrev=40") or "unknown"


def committed_at_s() -> int:
    """Return the Unix time of the commit, the time of everything that is made from it."""
    return int(_git("log", "-1", "--format=%ct") or "0")


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *arguments],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return done.stdout.strip()


def _buildah(*arguments: str) -> str:
    store = cache_dir().with_name("images")
    return _run(
        "buildah", f"--root={store}", f"--runroot={store}-run", "--storage-driver=vfs", *arguments
    )


def _run(*command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=ROOT,
        umask=0o022,  # the modes of the image's files
    )  # fmt: skip
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise ImageError(f"{command[0]} failed (exit {done.returncode}):\n{tail}")
    return done.stdout
