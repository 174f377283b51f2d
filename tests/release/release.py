"""The files of a release: built into a folder of their own, then compared and published."""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from hashlib import file_digest, sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from reconciler import __version__
from tests.image.archive import digest
from tests.image.build import BASE, ROOT, base_digest, build, committed_at_s, revision
from tests.release.krew import PROGRAM, build_archive, manifest
from tests.release.provenance import provenance
from tests.release.sbom import PRODUCT, bill, packages

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""Those of the image, by the name that the kernel gives them."""
STEM = f"{PRODUCT}-{__version__}"
SUMS = "SHA256SUMS"

Say = Callable[[str], None]


class ReleaseError(Exception):
    """The release could not be made; the message says what to do about it."""


def why_not(version: str, root: Path = ROOT) -> list[str]:
    """Return what must be done before this version can be released from the tree `root`."""
    changes = subprocess.run(
        ["git", "-C", str(root), "status", "--porcelain"],
        capture_output=True, text=True, timeout=30, check=True,
    ).stdout.splitlines()  # fmt: skip
    heading = rf"^## {re.escape(version)} - \d{{4}}-\d\d-\d\d$"
    said = (
        (version != __version__, f"set __version__ to {version!r}: it is {__version__!r}"),
        (
            not re.search(heading, (root / "CHANGELOG.md").read_text(), re.MULTILINE),
            f"give CHANGELOG.md the heading '## {version} - YYYY-MM-DD'",
        ),
        (bool(changes), f"commit or remove {', '.join(line[3:] for line in changes)}"),
    )
    return [remedy for holds, remedy in said if holds]


def make(folder: Path, *, url: str, say: Say) -> None:
    """Build every file that this machine can build, and add it to `folder`.

    Args:
        folder: The release; may have the files of a former run, also one of another machine.
        url: Where releases are published.

    Raises:
        ReleaseError: A file differs from the former run's, or this machine builds no image. The
            folder is unchanged.
        ImageError: The image cannot be built here.
    """
    if platform.machine() not in ARCHITECTURES:
        raise ReleaseError(f"there is no image for {platform.machine()}")
    architecture = ARCHITECTURES[platform.machine()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent) as name:
        made = Path(name)
        build_packages(made)
        [wheel] = made.glob("*.whl")
        plugin = made / f"{PROGRAM}-{__version__}.tar.gz"
        build_archive(wheel, plugin)
        (made / "token-reconciler.yaml").write_text(
            manifest(plugin.name, sums(made)[plugin.name], url=url)
        )
        (made / f"{STEM}.cdx.json").write_text(bill(packages(ROOT / "build/packages")))
        image = made / f"{STEM}-linux-{architecture}.oci.tar"
        build(image, say)
        digests = sums(made) | {f"image {PRODUCT}": digest(image).removeprefix("sha256:")}
        statement = provenance(
            digests, made_from(), version=__version__, architecture=architecture, url=url
        )
        (made / f"{STEM}-linux-{architecture}.intoto.json").write_text(statement)
        publish(made, folder)
    for other in sorted({*ARCHITECTURES.values()} - {architecture}):
        if not list(folder.glob(f"*-linux-{other}.oci.tar")):
            say(
                f"NOT BUILT: the image for linux/{other}. This machine is {architecture}, and no"
                f" emulation is used. Copy {folder} to a machine that is {other}, and run the same"
                " command there: docs/release.md"
            )


def build_packages(folder: Path) -> None:
    """Build the sdist, and the wheel from it, with the locked hatchling."""
    subprocess.run(
        [ROOT / ".venv/bin/uv", "build", "--quiet", "--no-build-isolation", "--out-dir", folder],
        cwd=ROOT, check=True, timeout=120,
        env=os.environ | {"SOURCE_DATE_EPOCH": str(committed_at_s())},
    )  # fmt: skip
    (folder / ".gitignore").unlink(missing_ok=True)


def made_from() -> dict[str, dict[str, str]]:
    """Return the digests of what the files are made from: the commit, the packages, the base."""
    return {
        "source": {"gitCommit": revision()},
        "uv.lock": {"sha256": sha256((ROOT / "uv.lock").read_bytes()).hexdigest()},
        BASE: {"sha256": base_digest().removeprefix("sha256:")},
    }


def sums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file, in hex, by name."""
    found = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            found[path.name] = file_digest(file, "sha256").hexdigest()
    return found


def publish(made: Path, folder: Path) -> None:
    """Move the files of `made` to `folder`, and write the sums of all; see `make`."""
    former = read_sums(folder / SUMS)
    now = sums(made)
    if differing := sorted(name for name in now if former.get(name, now[name]) != now[name]):
        raise ReleaseError(f"not the same as in {folder}: {', '.join(differing)}")
    folder.mkdir(exist_ok=True)
    for name in now:
        shutil.move(made / name, folder / name)
    lines = (f"{digest}  {name}\n" for name, digest in sorted((former | now).items()))
    (folder / SUMS).write_text("".join(lines))


def read_sums(file: Path) -> dict[str, str]:
    """Return name -> digest of a file that `sha256sum --check` reads; empty if there is none."""
    lines = file.read_text().splitlines() if file.exists() else []
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
