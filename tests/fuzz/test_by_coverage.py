"""Inputs are chosen by coverage where atheris is installed; elsewhere that is said."""

import importlib.util
import subprocess
import sys


def test_a_target_is_run_or_the_reason_is_printed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.by_coverage", "jwt", "--runs", "20"],
        capture_output=True, text=True, check=False, timeout=150,
    )  # fmt: skip
    has_atheris = importlib.util.find_spec("atheris") is not None
    expected = (
        "1 targets, 0 with a failure" if has_atheris else "NOT RUN HERE: atheris has no wheel"
    )
    assert expected in done.stdout, done.stderr
    assert done.returncode == 0
