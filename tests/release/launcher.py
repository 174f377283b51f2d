#!/usr/bin/env python3
"""Runs kubectl's plugin in a virtual environment, which the first call makes beside this file."""

import fcntl
import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent  # krew links to this file
ENVIRONMENT = HERE / "environment"
COMPLETE = ENVIRONMENT / "complete"


def install() -> None:
    """Install the packages, each with the hash that the release has, and the product's wheel."""
    print("installing the plugin's packages, once", file=sys.stderr)
    venv.create(ENVIRONMENT, clear=True, with_pip=True)
    pip = [
        ENVIRONMENT / "bin/python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-compile",
        "--no-deps",
    ]
    [wheel] = HERE.glob("*.whl")
    for packages in (["--require-hashes", "--requirement", HERE / "requirements.txt"], [wheel]):
        subprocess.run([*pip, *packages], check=True, stdout=sys.stderr)
    COMPLETE.touch()


def main() -> None:
    with (HERE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not COMPLETE.exists():
            install()
    program = str(ENVIRONMENT / "bin/kubectl-token_reconciler")
    os.execv(program, [program, *sys.argv[1:]])


if __name__ == "__main__":
    main()
