"""What a security review asks of the image, read from the image itself."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from reconciler import __version__
from tests.cluster.conftest import unavailable
from tests.image.__main__ import ARCHIVE
from tests.image.archive import digest
from tests.image.build import BASE, IMAGE, LIMIT_S, ROOT, config_of, load, root_of, size, why_not
from tests.release.sbom import installed, packages

MAX_OWN_BYTES = 120_000_000
UNCHECKED_HASH = b"\x01\0\0\0"
"""The flags in the header of bytecode. Source: PEP 552."""
USER = "65532:65532"
COMMAND = "/opt/reconciler/bin/reconciler"

PROBE = """
import importlib.util, json, pathlib, sys
modules = ("reconciler.app", "reconciler.lab", "uvloop", "grpc", "joserfc", "pytest", "uv", "pip")
try:
    pathlib.Path("/opt/reconciler/written").write_text("x")
    written = True
except OSError:
    written = False
json.dump({"found": [m for m in modules if importlib.util.find_spec(m)], "written": written},
          sys.stdout)
"""


class TestFiles:
    def test_one_version_of_uv_builds_everything(self) -> None:
        versions = [
            re.findall(r"^(?:ARG )?UV_VERSION[ :=]+(\S+)$", text, re.MULTILINE)
            for text in ((ROOT / name).read_text() for name in ("Dockerfile", "Makefile"))
        ]
        locked = re.search(r'name = "uv"\nversion = "([^"]+)"', (ROOT / "uv.lock").read_text())
        assert locked is not None
        assert versions == [[locked[1]], [locked[1]]]

    def test_the_build_sees_only_what_it_copies(self) -> None:
        copied = {
            source
            for line in re.findall(
                r"^COPY (?!--from)(.+)$", (ROOT / "Dockerfile").read_text(), re.M
            )
            for source in line.split()[:-1]
        }
        lines = (ROOT / ".dockerignore").read_text().splitlines()
        assert "*" in lines
        assert {line[1:] for line in lines if line.startswith("!")} == copied


@pytest.fixture(scope="session")
def archive() -> Path:
    """The archive of `make image`, which builds nothing where it has built this commit before."""
    if why := why_not():
        unavailable(why)
    subprocess.run(["make", "image"], cwd=ROOT, check=True, timeout=LIMIT_S)
    load(ROOT / ARCHIVE)
    return ROOT / ARCHIVE


@pytest.fixture(scope="module")
def root(archive: Path) -> Iterator[Path]:
    """The image's files, without any shell."""
    with root_of() as folder:
        for name in ("sh", "dash", "bash", "rbash"):
            (folder / "usr/bin" / name).unlink(missing_ok=True)
        yield folder


def run(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as the image's user on a root file system that is read-only."""
    read_only = (
        'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && root=$1 && shift'
        f' && exec chroot --userspec={USER} "$root" "$@"'
    )
    return subprocess.run(
        ["unshare", "--mount", "sh", "-ec", read_only, "sh", str(root), *command],
        capture_output=True, text=True, timeout=60, check=False,
        env={"PATH": os.environ["PATH"]},
    )  # fmt: skip


def versions(found: list[Distribution]) -> dict[str, str]:
    return {one.name: one.version for one in found}


@pytest.mark.cluster
@pytest.mark.timeout(600)
class TestImage:
    def test_adds_little_to_its_base(self, archive: Path) -> None:
        assert size(IMAGE) - size(BASE) < MAX_OWN_BYTES

    def test_the_archive_has_the_digest_that_another_tool_reads(self, archive: Path) -> None:
        read = subprocess.run(
            ["skopeo", "inspect", "--format={{.Digest}}", f"oci-archive:{archive}"],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert read.stdout.strip() == digest(archive)

    def test_starts_by_itself_as_any_user(self, archive: Path) -> None:
        config = config_of()
        assert config["User"] == USER
        assert (config["Entrypoint"], config["Cmd"]) == (["reconciler"], ["run"])
        labels = config["Labels"]
        assert labels["org.opencontainers.image.version"] == __version__
        assert labels["org.opencontainers.image.revision"] != "unknown"

    def test_runs_without_shell_and_without_writing(self, root: Path) -> None:
        done = run(root, COMMAND, "--version")
        assert (done.stdout, done.stderr) == (f"reconciler {__version__}\n", "")

    def test_says_what_is_missing_where_nothing_is_set(self, root: Path) -> None:
        done = run(root, COMMAND, "run")
        assert done.returncode == 2
        assert "no token to give to runners" in done.stderr

    def test_holds_what_runs_and_nothing_of_lab_tests_or_build(self, root: Path) -> None:
        done = run(root, "/opt/reconciler/bin/python3", "-c", PROBE)
        assert done.stderr == ""
        answer = json.loads(done.stdout)
        assert answer == {"found": ["reconciler.app", "uvloop"], "written": False}

    def test_the_bill_of_materials_has_the_packages_of_the_image_and_no_other(
        self, root: Path, tmp_path: Path
    ) -> None:
        in_image = installed(root / "opt/reconciler")
        listed = packages(tmp_path / "packages")
        assert len(in_image) > 20
        assert versions(listed) == versions(in_image)

    def test_starts_from_bytecode_that_no_time_of_a_file_can_outdate(self, root: Path) -> None:
        """Nothing can be kept at run time, and compiling at each start takes seconds."""
        sources = list((root / "opt/reconciler").rglob("reconciler/**/*.py"))
        assert sources
        assert all(list(path.parent.glob(f"__pycache__/{path.stem}.*.pyc")) for path in sources)
        compiled = (root / "opt/reconciler").rglob("*.pyc")
        assert {file.read_bytes()[4:8] for file in compiled} == {UNCHECKED_HASH}
