"""A lab whose commands start from a process that has the imports; other files have their own."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.lab.operator_lab import Lab, open_lab
from tests.lab.warm_start import warm_start


@pytest.fixture(scope="module")
def start() -> Iterator[list[str]]:
    with warm_start() as words:
        yield words


@pytest.fixture
async def lab(tmp_path: Path, start: list[str]) -> AsyncIterator[Lab]:
    async with open_lab(tmp_path, start=start) as opened:
        yield opened
