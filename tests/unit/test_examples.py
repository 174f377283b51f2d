"""The examples in the product's docstrings run, and give what they show."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

import reconciler

PACKAGE = Path(reconciler.__file__).parent

EXAMPLE = re.compile(r"^ *>>> ", re.MULTILINE)


def examples() -> dict[str, int]:
    """Return how many examples the text of each module has; modules without one are left out."""
    counts = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): len(
            EXAMPLE.findall(path.read_text())
        )
        for path in sorted(PACKAGE.rglob("*.py"))
    }
    return {name.removesuffix(".__init__"): count for name, count in counts.items() if count}


@pytest.mark.parametrize(("name", "count"), examples().items())
def test_every_example_of_a_module_runs(name: str, count: int) -> None:
    """An example where doctest does not look, in an attribute's docstring, fails by the count."""
    result = doctest.testmod(importlib.import_module(name))
    assert (result.failed, result.attempted) == (0, count)


def test_the_seams_that_a_new_reader_meets_first_have_examples() -> None:
    assert {
        "reconciler.clock",
        "reconciler.controller.decide.refresh_plan",
        "reconciler.informer.store",
        "reconciler.naming",
        "reconciler.workqueue.queue",
    } <= examples().keys()
