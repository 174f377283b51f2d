"""`python -m tests.bench`: the figures, as ratios within one run, printed and kept as JSON.

Machines are shared and noisy, so nothing here is compared with a number from another run: the
replaced loop (emulated), a bare client and the product meet the same API server in turn, several
times, and medians are quoted.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from tests.assets import find
from tests.bench import failover, startup, telemetry
from tests.cluster.controlplane import ControlPlane

REPORT = Path("build/bench.json")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--sessions", type=int, default=1000, help="sessions in 4 projects")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of product and bare client")
    parser.add_argument("--failovers", type=int, default=20, help="rounds of each kind of failover")
    arguments = parser.parse_args()
    binaries = find()
    if missing := {"etcd", "kube-apiserver"} - binaries.keys():
        print(f"bench: no {', no '.join(sorted(missing))}; build with: make assets")
        return 1
    with ControlPlane(binaries) as control_plane, tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(
            startup.measure(
                control_plane,
                Path(folder),
                sessions=arguments.sessions,
                rounds=arguments.rounds,
            )
        )
        figures |= asyncio.run(
            failover.measure(control_plane, Path(folder), rounds=arguments.failovers)
        )
    print("bench: what telemetry costs of a refresh", flush=True)
    figures |= asyncio.run(telemetry.measure())
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"\n{json.dumps(figures, indent=2)}\n\nalso in {REPORT}")
    return 0


sys.exit(main())
