"""What the documents name is there, and what the log may say to a human is in them."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = "manifests/components/alerts/rules.yaml"
DOCUMENTS = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))

PRODUCT = [
    path
    for path in sorted((ROOT / "reconciler").rglob("*.py"))
    if not {"lab", "simulation"} & set(path.parts)
]
SOURCE = "\n".join(path.read_text() for path in PRODUCT)

NAME = r"[a-z]+(?:_[a-z]+)+"


def events_in_the_table() -> set[str]:
    """Return the first column of README's table of log events."""
    _, _, rest = (ROOT / "README.md").read_text().partition("| log event | means |\n")
    table, _, _ = rest.partition("\n\n")
    return {name for row in table.splitlines() for name in re.findall(NAME, row.split("|")[1])}


def is_said(name: str) -> bool:
    """Tell whether the product's code holds this name as a word of its own, in quotes."""
    return f'"{name}"' in SOURCE


def test_every_event_of_the_table_is_one_that_the_log_may_say() -> None:
    found = events_in_the_table()
    assert len(found) > 40
    assert {name for name in found if not is_said(name)} == set()


def test_every_warning_is_in_the_table() -> None:
    called = re.findall(rf'log\.(?:warning|error|exception)\(\s*"({NAME})"', SOURCE)
    judged = re.findall(rf'says="({NAME})"', SOURCE)
    assert {*called, *judged} - events_in_the_table() == set()


@pytest.mark.parametrize("document", [*DOCUMENTS, RULES])
def test_what_is_to_be_looked_for_in_the_log_can_be_found_there(document: str) -> None:
    text = (ROOT / document).read_text()
    if document == RULES:
        groups = yaml.safe_load(text)["spec"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        text = "\n".join(rule.get("annotations", {}).get("description", "") for rule in rules)
    sentences = [one for one in re.split(r"\.\s|\n\n|\|", text) if re.search(r"\blog\b", one)]
    named = {name for sentence in sentences for name in re.findall(NAME, sentence)}
    metrics = {name for name in named if name.startswith("token_reconciler_")}
    assert {name for name in named - metrics if name not in SOURCE} == set()
