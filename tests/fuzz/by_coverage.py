"""`python -m tests.fuzz.by_coverage jwt --runs 50000`: inputs chosen by the code that they reach.

The targets of `python -m tests.fuzz`, driven by atheris and libFuzzer, which begin with the samples
in the repository. What reaches new code stays in build/fuzz/corpus/ for the next run. An input that
fails is kept in build/fuzz/; after the fault is mended it belongs into the repository's samples.

Each target has a process of its own: libFuzzer ends the process that it runs in.

Exit codes: 0 nothing failed, or atheris has no wheel for this machine; 1 otherwise.
"""

import argparse
import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
KEPT = Path(__file__).parents[2] / "build" / "fuzz"

HANG_S = 10
MEMORY_MB = 2048
LONGEST_BYTES = 16_384
"""Longer inputs slow down the search: each one costs time that many short ones would have used."""

PLAY = "play"


def run(name: str, runs: int, seed: int) -> int:
    """Run one target in a process; return its exit code."""
    new, kept = KEPT / "corpus" / name, KEPT / name
    for folder in (new, kept):
        folder.mkdir(parents=True, exist_ok=True)
    flags = [
        f"-runs={runs}", f"-seed={seed}", f"-timeout={HANG_S}", f"-rss_limit_mb={MEMORY_MB}",
        f"-max_len={LONGEST_BYTES}", f"-artifact_prefix={kept}/", "-print_final_stats=1",
        str(new), str(CORPUS / name),
    ]  # fmt: skip
    command = [sys.executable, "-m", "tests.fuzz.by_coverage", PLAY, name, *flags]
    done = subprocess.run(command, capture_output=True, check=False)
    lines = done.stderr.decode(errors="replace").splitlines()
    if done.returncode:
        print(done.stdout.decode(errors="replace"), *lines[-40:], sep="\n")
    else:
        said = [line for line in lines if "DONE" in line][-1:]
        print(f"{name:16}", *said or lines[-1:], flush=True)
    return done.returncode


def play(name: str, flags: list[str]) -> None:
    """Run a target in this process, which ends with it."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["reconciler"]):
        targets = importlib.import_module("tests.fuzz.targets").TARGETS
    structlog = importlib.import_module("structlog")
    structlog.configure(
        processors=[structlog.processors.KeyValueRenderer()],
        logger_factory=structlog.ReturnLoggerFactory(),
    )
    target = next(each for each in targets if each.name == name)
    atheris.Setup([sys.argv[0], *flags], target.run)
    atheris.Fuzz()


def main() -> int:
    if sys.argv[1:2] == [PLAY]:
        play(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.by_coverage")
    parser.add_argument("targets", nargs="*", help="their names; all by default")
    parser.add_argument("--runs", type=int, default=50_000, help="of each target")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print(
            "NOT RUN HERE: atheris has no wheel for this Python or this machine; `make fuzz` runs"
        )
        return 0
    names = asked.targets or sorted(path.name for path in CORPUS.iterdir())
    failed = [name for name in names if run(name, asked.runs, asked.seed)]
    print(f"{len(names)} targets, {len(failed)} with a failure: {' '.join(failed) or '-'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
