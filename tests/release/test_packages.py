"""The wheel, the sdist and the bill of materials have the product alone."""

import json
import tarfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path
from zipfile import ZipFile

import pytest

from reconciler import __version__
from tests.release.release import build_packages
from tests.release.sbom import PRODUCT, SbomError, bill, packages


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build_packages(folder)
    return folder


def names_in(dist: Path) -> Iterator[tuple[str, list[str]]]:
    [wheel], [sdist] = dist.glob("*.whl"), dist.glob("*.tar.gz")
    with ZipFile(wheel) as zipped, tarfile.open(sdist) as tarred:
        yield "", zipped.namelist()
        yield f"{sdist.name.removesuffix('.tar.gz')}/", tarred.getnames()


def test_neither_the_wheel_nor_the_sdist_has_the_lab_or_a_test(dist: Path) -> None:
    for prefix, names in names_in(dist):
        assert f"{prefix}reconciler/app/main.py" in names
        assert [name for name in names if "/lab/" in name or "tests/" in name] == []


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Distribution]:
    return packages(tmp_path_factory.mktemp("packages"))


class TestBillOfMaterials:
    def test_names_the_product_with_its_version(self, found: list[Distribution]) -> None:
        product = json.loads(bill(found))["metadata"]["component"]
        assert (product["name"], product["version"]) == (PRODUCT, __version__)

    def test_names_what_runs_and_no_more_each_with_a_licence(
        self, found: list[Distribution]
    ) -> None:
        parts = json.loads(bill(found))["components"]
        names = {part["name"] for part in parts}
        assert {"aiohttp", "msgspec", "pydantic"} <= names
        assert not names & {PRODUCT, "grpcio", "joserfc", "pytest", "uv", "hatchling"}
        assert [part["name"] for part in parts if not part["licenses"]] == []

    def test_has_no_address_of_a_registry(self, found: list[Distribution]) -> None:
        lines = bill(found).splitlines()
        assert [line for line in lines if "://" in line and '"$schema"' not in line] == []

    def test_is_the_same_for_the_same_packages(self, found: list[Distribution]) -> None:
        assert bill(found) == bill(reversed(found))

    def test_a_package_without_a_licence_is_refused(
        self, found: list[Distribution], tmp_path: Path
    ) -> None:
        (tmp_path / "METADATA").write_text("Metadata-Version: 2.1\nName: unlicensed\nVersion: 1\n")
        with pytest.raises(SbomError, match="unlicensed 1 declares no licence"):
            bill([*found, PathDistribution(tmp_path)])
