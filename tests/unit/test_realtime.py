"""The Makefile runs each file of the tier `realtime`, which it names."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
OTHER_TARGETS = {"faults"}
"""Folders of tests/ that `make test` leaves to a target of their own."""


def test_the_makefile_names_each_file_with_tokens_of_seconds() -> None:
    marked = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("test_*.py")
        if re.search(r"\bmark\.realtime\b", path.read_text())  # of a file, or of one test in it
        and path.parent.name not in OTHER_TARGETS
    }
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    [named] = re.findall(r"^REALTIME := (.*)$", text, re.MULTILINE)
    assert marked
    assert set(named.split()) == marked
