"""kubectl's plugin for krew: one archive for all platforms, and the manifest that names it."""

import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from reconciler import __version__
from tests.image.archive import pack
from tests.image.build import ROOT

PROGRAM = "kubectl-token_reconciler"
LIMIT_S = 60.0


def build_archive(wheel: Path, archive: Path) -> None:
    """Write the plugin's archive: the wheel, the locked packages' hashes, and the launcher."""
    with TemporaryDirectory() as name:
        plugin = Path(name)
        subprocess.run(
            [ROOT / ".venv/bin/uv", "export", "--quiet", "--frozen", "--no-dev", "--no-header",
             "--no-annotate", "--no-emit-project", "--output-file", plugin / "requirements.txt"],
            cwd=ROOT, check=True, timeout=LIMIT_S, capture_output=True,
        )  # fmt: skip
        shutil.copy(wheel, plugin)
        shutil.copy(ROOT / "LICENSE", plugin)
        shutil.copy(Path(__file__).with_name("launcher.py"), plugin / PROGRAM)
        (plugin / PROGRAM).chmod(0o755)
        pack(plugin, archive, compressed=True)


def manifest(archive: str, digest: str, *, url: str) -> str:
    """Return krew's manifest.

    Args:
        archive: The archive's file name.
        digest: Its SHA-256, in hex.
        url: Where releases are published.
    Source: krew, "Writing Krew plugin manifests", v1alpha2.
    """
    plugin = {
        "apiVersion": "krew.googlecontainertools.github.com/v1alpha2",
        "kind": "Plugin",
        "metadata": {"name": "token-reconciler"},
        "spec": {
            "version": f"v{__version__}",
            "homepage": url,
            "shortDescription": "Inspect and control the tokens of runner pods",
            "description": (
                "Shows the remaining life of every runner's token, explains why a session has none,"
                " refreshes tokens, and pauses and resumes their refreshes.\n"
            ),
            "caveats": (
                "Needs Python 3.11 or newer, as python3 on PATH, with venv. The first call installs"
                " the locked packages from the package index that pip is configured for.\n"
            ),
            "platforms": [
                {
                    "selector": {
                        "matchExpressions": [
                            {"key": "os", "operator": "In", "values": ["darwin", "linux"]}
                        ]
                    },
                    "uri": f"{url}/{__version__}/{archive}",
                    "sha256": digest,
                    "bin": PROGRAM,
                }
            ],
        },
    }
    return yaml.safe_dump(plugin, sort_keys=False)
