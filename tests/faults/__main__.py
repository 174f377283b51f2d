"""`python -m tests.faults`: what the product does at each fault of a peer's answers, as lines.

`--peer issuer gzip reset` plays the faults of the issuer that have one of these words in their
names. The product's logs are in build/faults/ then.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.assets import find
from tests.cluster.controlplane import ControlPlane
from tests.faults.breaks import BREAKS
from tests.faults.stage import PARALLEL, Peer, play_all

LOGS = Path("build/faults")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--peer", choices=[peer.value for peer in Peer], default="API server")
    parser.add_argument("--parallel", type=int, default=PARALLEL)
    parser.add_argument("words", nargs="*")
    asked = parser.parse_args()
    chosen = {
        name: broken
        for name, broken in BREAKS.items()
        if not asked.words or any(word in name for word in asked.words)
    }
    with ControlPlane(find()) as plane, tempfile.TemporaryDirectory() as made:
        outcomes = asyncio.run(
            play_all(plane, Path(made), Peer(asked.peer), chosen, parallel=asked.parallel)
        )
    LOGS.mkdir(parents=True, exist_ok=True)
    for name, outcome in outcomes.items():
        print(f"{name}: {outcome}")
        (LOGS / f"{name.replace(' ', '-')}.log").write_text("".join(outcome.log))
    return 1 if any(outcome.problems for outcome in outcomes.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
