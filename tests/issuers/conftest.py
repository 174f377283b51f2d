"""One running issuer of each kind for the whole session; skipped loudly where it is not fetched."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.assets import issuers, locate
from tests.assets.programs import HYDRA_PROGRAM
from tests.cluster.conftest import unavailable
from tests.issuers.django_toolkit.issuer import DjangoToolkit
from tests.issuers.fleet import Fleet, open_fleet
from tests.issuers.hydra import Hydra
from tests.issuers.issuer import RealIssuer
from tests.issuers.keycloak import Keycloak
from tests.issuers.oidc_provider.issuer import OidcProvider

ALL = "RECONCILER_ALL_ISSUERS"
"""Set to 1, it runs the story on every issuer; else on Keycloak alone (`make test-issuers`)."""

SESSIONS = 6

KINDS: dict[type[RealIssuer], issuers.Package | None] = {
    Keycloak: issuers.KEYCLOAK_PACKAGE,
    Hydra: None,
    OidcProvider: issuers.OIDC_PROVIDER_PACKAGE,
    DjangoToolkit: issuers.DJANGO_TOOLKIT_PACKAGE,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kind" in metafunc.fixturenames:
        chosen = list(KINDS) if os.environ.get(ALL) == "1" else [Keycloak]
        metafunc.parametrize("kind", chosen, ids=lambda kind: kind.name)


@pytest.fixture
async def issuer(kind: type[RealIssuer], tmp_path: Path) -> AsyncIterator[RealIssuer]:
    async with kind(_program(kind), tmp_path) as running:
        yield running


@pytest.fixture
async def fleet(issuer: RealIssuer, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with open_fleet(issuer, tmp_path, sessions=SESSIONS) as opened:
        yield opened


def _program(kind: type[RealIssuer]) -> Path:
    package = KINDS[kind]
    if package is not None:
        found, name = issuers.find(package), package.name
    else:
        hit, _ = locate.search(HYDRA_PROGRAM)
        found, name = (hit.path if hit else None), HYDRA_PROGRAM.name
    if found is None:
        unavailable(f"no {name}: run `make assets` (Keycloak) or `make assets-issuers` (all)")
    return found
