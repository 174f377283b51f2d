"""The commands of docs/release.md, word for word: the plugin in krew, and the signature."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from reconciler import __version__
from tests.cluster.conftest import require
from tests.image.build import ROOT
from tests.node.guide import RELEASE, blocks
from tests.release.krew import PROGRAM, build_archive, manifest
from tests.release.release import SUMS, build_packages, sums

LIMIT_S = 300.0


def sh(command: str, folder: Path, **words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-ec", command], cwd=folder, env=os.environ | {"HOME": str(folder)} | words,
        capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_krew_installs_the_plugin_whose_first_call_installs_its_packages(tmp_path: Path) -> None:
    programs = require("krew", "kubectl")
    build_packages(tmp_path)
    [wheel] = tmp_path.glob("*.whl")
    archive = tmp_path / f"{PROGRAM}-{__version__}.tar.gz"
    build_archive(wheel, archive)
    (tmp_path / "token-reconciler.yaml").write_text(
        manifest(archive.name, sums(tmp_path)[archive.name], url="https://releases.example")
    )
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/kubectl-krew").symlink_to(programs["krew"])
    folders = (programs["kubectl"].parent, tmp_path / "bin", tmp_path / ".krew/bin")
    path = ":".join([*map(str, folders), os.environ["PATH"]])
    [install] = blocks("sh", under="krew", guide=RELEASE)
    done = sh(install, tmp_path, PATH=path)
    assert done.returncode == 0, done.stderr
    first, second = (sh("kubectl token_reconciler -h", tmp_path, PATH=path) for _ in range(2))
    assert first.stderr == "installing the plugin's packages, once\n"
    assert second.stderr == ""
    assert first.stdout == second.stdout
    assert "Usage: kubectl token_reconciler" in second.stdout


class TestLauncher:
    @pytest.fixture
    def launcher(self, tmp_path: Path) -> Path:
        copy = tmp_path / PROGRAM
        shutil.copy(ROOT / "tests/release/launcher.py", copy)
        (tmp_path / "product-1-py3-none-any.whl").touch()
        return copy

    def test_says_that_its_packages_could_not_be_installed(self, launcher: Path) -> None:
        """The index is unreachable: nothing listens on port 1."""
        (launcher.parent / "requirements.txt").write_text(f"idna==3.10 --hash=sha256:{'0' * 64}\n")
        done = sh(f"python3 ./{PROGRAM} -h", launcher.parent,
                  PIP_INDEX_URL="http://127.0.0.1:1", PIP_RETRIES="0")  # fmt: skip
        assert done.returncode == 1
        assert "the plugin's packages could not be installed into" in done.stderr
        assert "Traceback" not in done.stderr

    def test_writes_nothing_once_it_is_installed(self, launcher: Path) -> None:
        programs = launcher.parent / "environment/bin"
        programs.mkdir(parents=True)
        (programs / PROGRAM).write_text("#!/bin/sh\necho ran\n")
        (programs / PROGRAM).chmod(0o755)
        (programs.parent / "complete").touch()
        assert sh(f"python3 ./{PROGRAM}", launcher.parent).stdout == "ran\n"
        assert not (launcher.parent / "lock").exists()


def test_a_signature_of_the_sums_covers_every_file(tmp_path: Path) -> None:
    (tmp_path / "wheel").write_text("content")
    assert sh(f"sha256sum wheel > {SUMS}", tmp_path).returncode == 0
    assert sh("ssh-keygen -q -t ed25519 -N '' -f key", tmp_path).returncode == 0
    sign, verify = blocks("sh", under="Sign", guide=RELEASE)
    assert sh(sign, tmp_path, RELEASE_KEY="key").returncode == 0
    signers = f"releases@releases.example {(tmp_path / 'key.pub').read_text()}"
    (tmp_path / "allowed_signers").write_text(signers)
    assert sh(verify, tmp_path).returncode == 0
    (tmp_path / "wheel").write_text("other content")
    assert "wheel: FAILED" in sh(verify, tmp_path).stdout
    assert sh(f"sha256sum wheel > {SUMS}", tmp_path).returncode == 0
    assert "Signature verification failed" in sh(verify, tmp_path).stderr
