"""docs/install.md, "Without the internet", word for word: the node pulls by digest."""

import shutil
from pathlib import Path

import pytest

from tests.image.__main__ import ARCHIVE
from tests.image.archive import digest
from tests.image.build import ROOT
from tests.node.guide import blocks
from tests.node.installation import Installation
from tests.node.mirror import mirror
from tests.release.release import STEM, publish

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(400),
    pytest.mark.asyncio(loop_scope="session"),
]


async def test_a_cluster_runs_the_image_of_a_release_by_its_digest(
    installed: Installation, tmp_path: Path
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    shutil.copy(ROOT / ARCHIVE, files / f"{STEM}-linux-amd64.oci.tar")
    expected = digest(files / f"{STEM}-linux-amd64.oci.tar")
    publish(files, installed.home)
    site = installed.home / "site/kustomization.yaml"
    before = site.read_text()
    copy, apply = blocks("sh", under="Without the internet")
    registries = installed.node.runtime.registries
    with mirror(tmp_path, home=installed.home, registries=registries):
        await installed.sh(copy)
        await installed.sh(apply)
        await installed.settled()
    pods = await installed.pods()
    assert {str(pod["imageID"]) for pod in pods.values()} == {
        f"mirror.example/platform/runner-token-reconciler@{expected}"
    }
    await installed.everybody_renewed()
    site.write_text(before)
    await installed.sh("kubectl apply -k site")
    await installed.settled()
