"""Each fault of `make soak` can be played on real servers, and the samples are complete."""

import asyncio
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.cluster.admin import Admin
from tests.cluster.conftest import NEEDED, require
from tests.cluster.controlplane import ControlPlane
from tests.cluster.world import open_world
from tests.soak.soak import soaking

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


async def test_each_fault_is_played_and_the_samples_are_complete(tmp_path: Path) -> None:
    with ControlPlane(require(*NEEDED)) as plane:
        connected = Admin.connect(plane.url, ca_file=plane.ca_file, token=plane.admin_token)
        async with connected as admin, open_world(plane, admin, tmp_path, ttl_s=60.0) as world:
            await world.add_sessions(each=8)
            async with soaking(world, seed=7, log=tmp_path / "log") as soak:
                for name, (_, fault) in soak.chaos.faults.items():
                    async with asyncio.timeout(60):
                        async with fault():
                            pass
                    assert len(world.runners) == 8, name
                async with asyncio.timeout(60):
                    while len(soak.samples) < 2 or not soak.samples[-1].refreshes:
                        await asyncio.sleep(0.5)
        sample = asdict(soak.samples[-1])
        assert all(sample[name] > 0 for name in ("rss_mb", "descriptors", "sockets", "tasks"))
        assert sample["tracebacks"] == 0
