"""`python -m tests.soak`: the product for hours on real servers, with a fault in each minute.

The samples are in build/soak.json and, as pictures, in build/soak/; the exit code is 1 where a
judge fails. What it judges is in docs/reference/benchmarks.md.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from random import Random

from tests.assets import find
from tests.bench.fleet import populate
from tests.bench.plots import lines
from tests.bench.say import say
from tests.cluster.admin import Admin
from tests.cluster.controlplane import ControlPlane
from tests.cluster.world import open_world
from tests.soak.soak import TTL_S, Soak, soaking


async def run(minutes: int, sessions: int, seed: int, report: Path) -> bool:
    """Run the soak; return whether every judge passes."""
    with ControlPlane(find()) as plane, tempfile.TemporaryDirectory() as made:
        connected = Admin.connect(plane.url, ca_file=plane.ca_file, token=plane.admin_token)
        async with connected as admin, open_world(plane, admin, Path(made), ttl_s=TTL_S) as world:
            say(f"making {sessions} sessions")
            await populate(world, sessions)
            folder = report.parent / report.stem
            folder.mkdir(parents=True, exist_ok=True)
            log = folder / "product.log"
            log.unlink(missing_ok=True)
            async with soaking(world, seed=seed, log=log) as soak:
                try:
                    await soak.chaos.run(minutes)
                finally:  # what ends a soak early is seen in the samples before
                    _save(soak, seed, report, folder)
    judges = soak.judges()
    for passed, words in judges:
        say(f"{'ok    ' if passed else 'FAILED'} {words}")
    return all(passed for passed, _ in judges)


def _save(soak: Soak, seed: int, report: Path, folder: Path) -> None:
    whole = {
        "seed": seed,
        "faults": [asdict(played) for played in soak.chaos.played],
        "samples": [asdict(sample) for sample in soak.samples],
    }
    report.write_text(json.dumps(whole, indent=1) + "\n")
    marks = [(played.start_s / 60, played.name) for played in soak.chaos.played]
    for title, names in {
        "memory, MB": ["rss_mb"],
        "descriptors, sockets, tasks": ["descriptors", "sockets", "tasks"],
        "lateness, s": ["lateness_p50_s", "lateness_worst_s"],
    }.items():
        series = {
            name: [(sample.at_s / 60, getattr(sample, name)) for sample in soak.samples]
            for name in names
        }
        path = folder / f"{title.partition(',')[0]}.svg"
        lines(f"{title}, by minutes", series, marks, path)
        say(f"picture: {path}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=int, default=120)
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--seed", type=int, default=Random().randrange(10**6))
    parser.add_argument("--report", type=Path, default=Path("build/soak.json"))
    asked = parser.parse_args()
    say(f"soak of {asked.minutes} minutes, {asked.sessions} sessions, --seed {asked.seed}")
    passed = asyncio.run(run(asked.minutes, asked.sessions, asked.seed, asked.report))
    say("soak passed" if passed else "soak FAILED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
