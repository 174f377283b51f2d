"""The admission policies let pass all that the product writes, and nothing else."""

import re
from pathlib import Path

import yaml

from reconciler.naming import Names

NAMES = Names()
FOLDER = Path(__file__).parents[2] / "manifests" / "chart" / "files" / "confinement"


def variables(name: str) -> dict[str, set[str]]:
    """Return the quoted words of each variable of a policy."""
    policy = next(iter(yaml.safe_load_all((FOLDER / name).read_text())))
    return {
        variable["name"]: set(re.findall(r"'([^']+)'", variable["expression"]))
        for variable in policy["spec"]["variables"]
    }


def test_of_a_secret_they_let_pass_every_annotation_that_is_written_and_no_other() -> None:
    by_people = {NAMES.requested_at, NAMES.paused}
    assert variables("secrets.yaml")["ours"] == {*NAMES.annotations()} - by_people - {
        NAMES.touched_at
    }


def test_of_a_secret_they_let_pass_the_token_and_at_its_making_the_platforms_labels() -> None:
    found = variables("secrets.yaml")
    assert found["key"] == {NAMES.secret_key}
    assert found["theirs"] == {
        NAMES.session_id,
        NAMES.project_id,
        NAMES.managed,
        NAMES.managed_by_label,
    }


def test_of_a_pod_they_let_pass_the_touch() -> None:
    assert variables("pods.yaml")["touch"] == {NAMES.touched_at}
