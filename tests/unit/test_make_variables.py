"""What a person gives to a target of the Makefile reaches its program as one argument."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz.__main__ import main as fuzz
from tests.mutants.__main__ import main as mutants

ROOT = Path(__file__).parents[2]

PYTHON = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps([*sys.argv[1:], os.environ.get("RECONCILER_SEEDS", "")]) + "\\n")
"""

TARGETS = {
    "mutants": ("ONLY", "SEEDS", "WORKERS"),
    "fuzz": ("MINUTES", "ONLY"),
    "fuzz-coverage": ("ONLY", "RUNS"),
    "bench": ("PART", "SESSIONS"),
    "soak": ("MINUTES", "SEED"),
    "worlds": ("SEEDS", "WORKERS"),
    "test-real": ("WORKERS",),
    "release": ("URL", "VERSION"),
}
"""The variables of each target that has some."""

Called = Callable[..., list[list[str]]]


@pytest.fixture
def called(tmp_path: Path) -> Called:
    """Return what runs a target of the Makefile, and returns each program's arguments."""
    (tmp_path / "bin").mkdir()
    for name in ("python", "uv"):
        (tmp_path / "bin" / name).write_text(PYTHON)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / ".locked").touch()
    calls = tmp_path / "calls"
    # Of a `make` that runs this test, its variables are in the environment.
    names = {name for of_target in TARGETS.values() for name in of_target}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in names and not name.startswith(("MAKE", "MFLAGS", "RECONCILER_SEEDS"))
    }

    def run(target: str, **variables: str) -> list[list[str]]:
        given = [f"{name}={value}" for name, value in variables.items()]
        subprocess.run(
            ["make", target, f"VENV={tmp_path}", *given],
            cwd=ROOT, env=kept | {"CALLS": str(calls)}, check=True, capture_output=True,
        )  # fmt: skip
        return [json.loads(line) for line in calls.read_text().splitlines()]

    return run


def test_words_of_a_mutants_name_are_one_phrase(called: Called) -> None:
    [*_, arguments] = called("mutants", ONLY="the lease's fence")
    assert "the lease's fence" in arguments


@pytest.mark.parametrize("target", TARGETS)
def test_a_value_with_spaces_is_one_argument(called: Called, target: str) -> None:
    values = {name: f"of {name}; false" for name in TARGETS[target]}
    given = [argument for arguments in called(target, **values) for argument in arguments]
    assert set(values.values()) <= set(given)


@pytest.mark.parametrize("target", TARGETS)
def test_a_value_that_is_not_given_is_no_argument(called: Called, target: str) -> None:
    if target != "release":  # its version must be given
        assert "" not in [argument for given in called(target) for argument in given[:-1]]


def test_the_table_has_each_variable_that_the_help_names() -> None:
    for line in (ROOT / "Makefile").read_text().splitlines():
        if found := re.match(r"([a-z-]+):.*##(.*)", line):
            named = set(re.findall(r"\b([A-Z]+)=", found[2])) - {"QUICK"}
            assert named <= set(TARGETS.get(found[1], ())), found[1]


def test_a_name_that_no_mutant_and_no_target_has_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        mutants(["releases the Lease", "no such mutant"])
    assert "'no such mutant'" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["fuzz", "jwt", "no such target"])
    with pytest.raises(SystemExit):
        fuzz()
    assert "no such target" in capsys.readouterr().err
