"""`python -m tests.bench.start`: the steps from the start of the process to its first refresh.

The servers are those of `make bench`, and the process begins again after each first refresh. With
`--against` the product of another tree runs in turn with this one, and the ratios are shown.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from reconciler.humanize import count
from tests.assets import find
from tests.bench.fleet import Fleet, opened
from tests.bench.say import say
from tests.cluster.controlplane import ControlPlane
from tests.controller import running

SCRIPT = Path(__file__).with_name("start_steps.py")
HERE = Path(__file__).parents[2]

Steps = Mapping[str, tuple[float, float]]
"""By name: seconds after the process began, and CPU seconds of the process until then."""


async def _start(fleet: Fleet, tree: Path) -> Steps:
    """Start the product of a tree until its first refresh; return its steps."""
    out = fleet.folder / "steps.json"
    out.unlink(missing_ok=True)
    environment = fleet.environment(PYTHONPATH=str(tree))
    began_s = time.time()
    async with running(environment, command=(sys.executable, SCRIPT, out, "run")) as controller:
        await controller.wait_for_event("runner_token_refreshed", limit_s=fleet.limit_s)
        await controller.wait_for_event("startup_resync_finished", limit_s=fleet.limit_s)
        await controller.terminate(limit_s=fleet.limit_s)
    found: dict[str, tuple[float, float]] = {}
    for name, at_s, cpu_s in json.loads(out.read_text()):
        found[_public(name, fleet)] = at_s - began_s, cpu_s
    return found


def _public(name: str, fleet: Fleet) -> str:
    """Return the name without those of this run's objects."""
    if "/secrets/" in name:
        return name[:2] + "PATCH a Secret"
    if "/leases" in name:
        return " ".join(name.split()[:2]) + " the Lease"
    return name


async def _measure(sessions: int, pairs: int, trees: Sequence[Path]) -> list[list[Steps]]:
    found: list[list[Steps]] = [[] for _ in trees]
    with ControlPlane(find()) as control_plane, tempfile.TemporaryDirectory() as made:
        async with opened(control_plane, Path(made), sessions=sessions) as fleet:
            for number in range(pairs + 1):
                await fleet.renew_account()
                turn = list(enumerate(trees))
                for index, tree in turn if number % 2 else reversed(turn):
                    steps = await _start(fleet, tree)
                    if number:  # the first one compiles modules
                        found[index].append(steps)
    return found


def _show(starts: Sequence[Steps]) -> None:
    """Print the medians of the steps that all starts have, in their order."""
    names = [name for name in starts[0] if all(name in steps for steps in starts)]
    rows = [
        (
            median(steps[name][0] for steps in starts),
            median(steps[name][1] for steps in starts),
            name,
        )
        for name in names
    ]
    print("| ms | CPU ms | step |\n|---|---|---|")
    for at_s, cpu_s, name in sorted(rows):
        print(f"| {at_s * 1e3:.0f} | {cpu_s * 1e3:.0f} | {name} |", flush=True)


def _compare(ours: Sequence[Steps], theirs: Sequence[Steps]) -> None:
    for what, index in (("time", 0), ("CPU", 1)):
        pairs = [
            [max(step[index] for step in steps.values()) for steps in pair]
            for pair in zip(ours, theirs, strict=True)
        ]
        print(
            f"{what} to the first refresh, ms: {median(one for one, _ in pairs) * 1e3:.0f}, the"
            f" other {median(other for _, other in pairs) * 1e3:.0f}, ratio"
            f" {median(one / other for one, other in pairs):.3f} in {count(len(pairs), 'pair')}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.start", description=__doc__)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--against", type=Path, help="another tree, which runs in turn with this")
    arguments = parser.parse_args()
    trees = [HERE, *([arguments.against.resolve()] if arguments.against else [])]
    found = asyncio.run(_measure(arguments.sessions, arguments.starts, trees))
    for tree, starts in zip(trees, found, strict=True):
        say(
            f"{tree}: medians of {count(len(starts), 'start')} with {arguments.sessions:,} sessions"
        )
        _show(starts)
    if len(found) > 1:
        _compare(*found)


if __name__ == "__main__":
    main()
