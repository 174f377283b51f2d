"""A release is made on a real tree: its files, their sums, and where they come from."""

import json
import platform
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict, Parse, ParseDict
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage

from reconciler import __version__
from tests.cluster.conftest import unavailable
from tests.image import build as image_build
from tests.image.__main__ import ARCHIVE
from tests.image.archive import digest
from tests.image.build import LIMIT_S, ROOT
from tests.release.release import (
    ARCHITECTURES,
    STEM,
    SUMS,
    ReleaseError,
    make,
    publish,
    read_sums,
    why_not,
)

URL = "https://releases.example/runner-token-reconciler"
ARCHITECTURE = ARCHITECTURES.get(platform.machine(), "unsupported")
IMAGE = f"{STEM}-linux-{ARCHITECTURE}.oci.tar"


@pytest.fixture(scope="module")
def said() -> list[str]:
    """What the release prints."""
    return []


@pytest.fixture(scope="module")
def folder(said: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    if why := image_build.why_not():
        unavailable(why)
    made = tmp_path_factory.mktemp("release") / __version__
    make(made, url=URL, say=said.append)
    return made


@pytest.mark.cluster
@pytest.mark.timeout(600)
class TestRelease:
    def test_has_every_file_with_its_sum(self, folder: Path) -> None:
        wheel = STEM.replace("-", "_", 2)
        assert sorted(path.name for path in folder.iterdir()) == sorted(
            [SUMS, IMAGE, f"kubectl-token_reconciler-{__version__}.tar.gz", "token-reconciler.yaml",
             f"{STEM}.cdx.json", f"{STEM}-linux-{ARCHITECTURE}.intoto.json",
             f"{wheel}-py3-none-any.whl", f"{wheel}.tar.gz"]
        )  # fmt: skip
        done = subprocess.run(
            ["sha256sum", "--check", "--strict", SUMS],
            cwd=folder, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert done.stdout.count(": OK\n") == len(list(folder.iterdir())) - 1

    def test_the_image_is_the_same_when_it_is_built_again(self, folder: Path) -> None:
        subprocess.run(["make", "image"], cwd=ROOT, check=True, timeout=LIMIT_S)
        again = ROOT / ARCHIVE
        assert digest(again) == digest(folder / IMAGE)
        assert sha256(again.read_bytes()).digest() == sha256((folder / IMAGE).read_bytes()).digest()

    def test_the_provenance_names_each_file_and_what_it_is_made_from(self, folder: Path) -> None:
        text = (folder / f"{STEM}-linux-{ARCHITECTURE}.intoto.json").read_text()
        statement = Parse(text, StatementMessage())
        Statement.copy_from_pb(statement).validate()
        ParseDict(MessageToDict(statement.predicate), Provenance())  # refuses an unknown field
        subjects = {one.name: one.digest["sha256"] for one in statement.subject}
        assert f"sha256:{subjects.pop('image runner-token-reconciler')}" == digest(folder / IMAGE)
        sums = read_sums(folder / SUMS)
        assert subjects == {name: sum for name, sum in sums.items() if ".intoto." not in name}
        definition = json.loads(text)["predicate"]["buildDefinition"]
        source, lock, base = definition["resolvedDependencies"]
        assert source["digest"]["gitCommit"] == image_build.revision()
        assert lock["digest"]["sha256"] == sha256((ROOT / "uv.lock").read_bytes()).hexdigest()
        manifest = json.loads(image_build._buildah("inspect", "--type=image", image_build.BASE))
        assert base["digest"]["sha256"] in manifest["FromImageDigest"]

    def test_an_image_that_cannot_be_built_here_is_named(
        self, folder: Path, said: list[str]
    ) -> None:
        missing = {*ARCHITECTURES.values()} - {ARCHITECTURE}
        warnings = [line for line in said if line.startswith("NOT BUILT")]
        assert [line.split(".")[0] for line in warnings] == [
            f"NOT BUILT: the image for linux/{other}" for other in sorted(missing)
        ]


class TestPublish:
    def made(self, folder: Path, **files: str) -> Path:
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
        return folder

    def test_adds_the_files_of_another_machine(self, tmp_path: Path) -> None:
        target = tmp_path / "release"
        publish(self.made(tmp_path / "amd64", wheel="same", image_amd64="one"), target)
        publish(self.made(tmp_path / "arm64", wheel="same", image_arm64="two"), target)
        names = [line.split("  ")[1] for line in (target / SUMS).read_text().splitlines()]
        assert names == ["image_amd64", "image_arm64", "wheel"]

    def test_refuses_a_file_that_came_out_differently(self, tmp_path: Path) -> None:
        target = tmp_path / "release"
        publish(self.made(tmp_path / "first", wheel="one", sdist="same"), target)
        with pytest.raises(ReleaseError, match=r": wheel$"):
            publish(self.made(tmp_path / "second", wheel="two", sdist="same"), target)
        assert (target / "wheel").read_text() == "one"


class TestWhyNot:
    @pytest.fixture
    def tree(self, tmp_path: Path) -> Path:
        """A clean tree that is ready for the release of this version."""
        (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## {__version__} - 2026-01-31\n")
        for command in (
            ["init", "--quiet"],
            ["add", "."],
            ["-c", "user.name=a", "-c", "user.email=a@b.example", "commit", "--quiet", "-m", "a"],
        ):
            subprocess.run(["git", *command], cwd=tmp_path, check=True, timeout=30)
        return tmp_path

    def test_a_clean_tree_with_the_version_in_its_changelog_is_released(self, tree: Path) -> None:
        assert why_not(__version__, tree) == []

    def test_each_missing_step_is_named(self, tree: Path) -> None:
        (tree / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n")
        (tree / "new.txt").touch()
        assert why_not("9.9.9", tree) == [
            f"set __version__ to '9.9.9': it is '{__version__}'",
            "give CHANGELOG.md the heading '## 9.9.9 - YYYY-MM-DD'",
            "commit or remove CHANGELOG.md, new.txt",
        ]
