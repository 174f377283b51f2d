"""Issuers that come as packages of other registries; each is one folder of the cache."""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.assets import locate
from tests.assets.build import BuildError, Say, sole_builder

KEYCLOAK = "26.4.0"
OIDC_PROVIDER = "9.13.3"
DJANGO_TOOLKIT = "3.4.1"
FETCH_LIMIT_S = 900.0

_ROOT = Path(__file__).parents[2]
_NPM = _ROOT / "tests/issuers/oidc_provider"


@dataclass(frozen=True, slots=True)
class Package:
    """What another registry has: an issuer, or one file of a module.

    Args:
        needs: The program of the machine that brings it, and that the message names.
        fetch: Fills an empty folder.
        entry: What the tests start, below that folder.
    """

    name: str
    version: str
    needs: str
    fetch: Callable[[Path], None]
    entry: str

    @property
    def folder(self) -> Path:
        return locate.cache_dir() / f"{self.name}-{self.version}"

    @property
    def path(self) -> Path:
        return self.folder / self.entry


def find(package: Package) -> Path | None:
    """Return what the tests start, or None where it was not fetched yet."""
    return package.path if package.path.exists() else None


def provide(package: Package, say: Say) -> Path:
    """Fetch `package` unless it is there; an interrupted fetch leaves nothing behind.

    Raises:
        BuildError: The program that fetches it is missing, or failed.
    """
    if shutil.which(package.needs) is None and not Path(package.needs).exists():
        raise BuildError(f"{package.name} {package.version} needs `{package.needs}` on PATH")
    with sole_builder(say):
        if (found := find(package)) is not None:
            return found
        say(f"{package.name} {package.version}: fetching")
        folder = Path(tempfile.mkdtemp(prefix="unfinished-", dir=locate.cache_dir()))
        try:
            package.fetch(folder)
            if not (folder / package.entry).exists():
                raise BuildError(f"{package.name} was fetched and has no {package.entry}")
            folder.rename(package.folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return package.path


def _keycloak(folder: Path) -> None:
    artifact = f"org.keycloak:keycloak-quarkus-dist:{KEYCLOAK}:zip"
    _run(
        ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={artifact}",
         f"-DoutputDirectory={folder}"], folder,
    )  # fmt: skip
    [archive] = folder.glob("*.zip")
    with zipfile.ZipFile(archive) as unpacked:
        unpacked.extractall(folder)
    archive.unlink()
    for script in folder.glob("*/bin/*.sh"):
        script.chmod(0o755)


def npm_packages(module: Path, folder: Path) -> None:
    """Fill `folder` with the packages that the lock file in `module` names; runs none of them."""
    for name in ("package.json", "package-lock.json"):
        shutil.copy(module / name, folder)
    _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)


def _django_toolkit(folder: Path) -> None:
    """A virtual environment by our lock file; it has none of this project's packages."""
    uv = str(Path(sys.executable).with_name("uv"))
    _run(
        [uv, "sync", "--quiet", "--frozen", "--only-group", "issuers", "--no-install-project",
         "--python", sys.executable], _ROOT, VIRTUAL_ENV="", UV_PROJECT_ENVIRONMENT=str(folder),
    )  # fmt: skip


def _run(command: list[str], folder: Path, **environment: str) -> None:
    try:
        subprocess.run(
            command, cwd=folder, env=os.environ | environment, check=True,
            capture_output=True, text=True, timeout=FETCH_LIMIT_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{command[0]}: {error}") from None
    except subprocess.CalledProcessError as error:
        output = (error.stdout + error.stderr)[-2000:]
        raise BuildError(f"{' '.join(command)} exits {error.returncode}:\n{output}") from None


KEYCLOAK_PACKAGE = Package("keycloak", KEYCLOAK, "mvn", _keycloak, f"keycloak-{KEYCLOAK}/bin/kc.sh")
OIDC_PROVIDER_PACKAGE = Package(
    "oidc-provider", OIDC_PROVIDER, "npm", partial(npm_packages, _NPM),
    "node_modules/oidc-provider/package.json",
)  # fmt: skip
DJANGO_TOOLKIT_PACKAGE = Package(
    "django-oauth-toolkit", DJANGO_TOOLKIT, sys.executable, _django_toolkit, "bin/python"
)

PACKAGES = (KEYCLOAK_PACKAGE, OIDC_PROVIDER_PACKAGE, DJANGO_TOOLKIT_PACKAGE)
"""Keycloak first: what CI runs."""
