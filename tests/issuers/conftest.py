"""The issuers of the tests; a test is skipped with a message if its issuer is not installed."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.assets import issuers, locate
from tests.assets.programs import HYDRA_PROGRAM
from tests.cluster.conftest import unavailable
from tests.issuers.django_toolkit.issuer import DjangoToolkit
from tests.issuers.fleet import Fleet, open_fleet
from tests.issuers.hydra import Hydra
from tests.issuers.issuer import POLL_S, RealIssuer
from tests.issuers.keycloak import Keycloak
from tests.issuers.oidc_provider.issuer import OidcProvider

ALL = "RECONCILER_ALL_ISSUERS"
"""Set to 1, test_story.py runs on every issuer; if not, on Keycloak (`make test-issuers`)."""

SESSIONS = 6

LIMIT_S = 170.0
"""Longest wait for one condition: Keycloak starts slowly while other tests run."""

KINDS: dict[type[RealIssuer], issuers.Package | None] = {
    Keycloak: issuers.KEYCLOAK_PACKAGE,
    Hydra: None,
    OidcProvider: issuers.OIDC_PROVIDER_PACKAGE,
    DjangoToolkit: issuers.DJANGO_TOOLKIT_PACKAGE,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kind" in metafunc.fixturenames:
        chosen = list(KINDS) if os.environ.get(ALL) == "1" else [Keycloak]
        metafunc.parametrize("kind", chosen, ids=lambda kind: kind.name, scope="module")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Let `make test-issuers` run the issuers in parallel, all tests of one in one worker."""
    if config.getoption("dist") != "loadscope":
        return None
    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = _issuer_of
    return scheduler


def _issuer_of(nodeid: str) -> str:
    return next((kind.name for kind in KINDS if f"[{kind.name}" in nodeid), nodeid)


@pytest.fixture
async def issuer(kind: type[RealIssuer], tmp_path: Path) -> AsyncIterator[RealIssuer]:
    async with kind(program_of(kind), tmp_path) as running:
        yield running


@pytest.fixture
async def fleet(issuer: RealIssuer, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with open_fleet(issuer, tmp_path, sessions=SESSIONS) as opened:
        yield opened


async def until(url: str, words: str) -> tuple[int, str]:
    """Request a page of the controller until it has these words; return its status and text."""
    async with aiohttp.ClientSession() as http, asyncio.timeout(LIMIT_S):
        while True:
            async with http.get(url) as answer:
                text = await answer.text()
                if words in text:
                    return answer.status, text
            await asyncio.sleep(POLL_S)


def program_of(kind: type[RealIssuer]) -> Path:
    """Return the starter of an issuer; skip the test if it is not installed."""
    package = KINDS[kind]
    if package is not None:
        found, name = issuers.find(package), package.name
    else:
        hit, _ = locate.search(HYDRA_PROGRAM)
        found, name = (hit.path if hit else None), HYDRA_PROGRAM.name
    if found is None:
        unavailable(f"no {name}: run `make assets` (Keycloak) or `make assets-issuers` (all)")
    return found
