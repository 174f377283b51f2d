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
LEAST_PYTHON = (3, 11)


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
    if sys.version_info < LEAST_PYTHON:
        sys.exit(f"python3 is {sys.version.split()[0]}: the plugin needs Python 3.11 or newer")
    if not COMPLETE.exists():  # without a lock afterwards, as the folder may be another user's
        try:
            with (HERE / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not COMPLETE.exists():
                    install()
        except (OSError, subprocess.CalledProcessError) as error:
            reason = error.strerror if isinstance(error, OSError) else "pip says why, above"
            sys.exit(f"the plugin's packages could not be installed into {ENVIRONMENT}: {reason}")
    program = str(ENVIRONMENT / "bin/kubectl-token_reconciler")
    os.execv(program, [program, *sys.argv[1:]])


if __name__ == "__main__":
    main()
