"""A Jaeger for the module, where its program is found; else one loud skip."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.assets import find
from tests.cluster.conftest import REQUIRE, admin, control_plane
from tests.traces.jaeger import Jaeger

__all__ = ["admin", "control_plane"]


@pytest.fixture(scope="session")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    binary: Path | None = find().get("jaeger")
    if binary is None:
        reason = "no jaeger: run `make assets` to build what is missing"
        if os.environ.get(REQUIRE) == "1":
            pytest.fail(f"{reason} ({REQUIRE}=1)", pytrace=False)
        pytest.skip(reason)
    with Jaeger(binary, tmp_path_factory.mktemp("jaeger")) as running:
        yield running
