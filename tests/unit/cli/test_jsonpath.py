"""JSONPath templates: the same text as kubectl prints for the same document, or a clear error."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.exit_codes import EXIT_SETTINGS, CommandError
from reconciler.cli.jsonpath import parse, render
from tests.cluster.conftest import require

DOCUMENT: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "fleet", "labels": {"a": "b"}},
    "summary": {"pods": 3, "next": None, "states": {"ok": 2, "expired": 1}},
    "sessions": [
        {"pod": "a", "state": "ok", "left": 12.5, "by": None, "writers": [], "paused": False},
        {"pod": "b", "state": "expired", "left": -3, "by": "x", "writers": ["k", "h"], "all": [[]]},
        {
            "pod": "c",
            "state": "ok",
            "left": 900.0,
            "writers": [{"b": 1, "a": None}],
            "paused": True,
        },
    ],
}
"""Of a kind that kubectl knows, which reads any field of it without a server."""

TEMPLATES = [
    "{.sessions[*].pod}",
    "{$.sessions[0].pod} text {@.metadata.name}",
    '{range .sessions[*]}{.pod}{"\\t"}{$.state}{"\\n"}{end}',
    "{range .sessions[*]}{range .writers[*]}{@}{','}{end};{end}",
    '{.sessions[?(@.state=="expired")].pod}',
    "{.sessions[?(@.state != 'expired')].pod}",
    "{.sessions[?(@.by)].pod}",
    "{.sessions[?(@.paused==true)].pod}",
    "{range .sessions[?(@.state=='ok')]}{.pod}{end}",
    "{.sessions[-1].pod}",
    "{.sessions[*].left}",
    "{.sessions[*].by}",
    "{.sessions[*].writers}",
    "{.sessions[*].paused}",
    "{.summary}",
    "{.summary.next}",
    "{.summary['pods']}",
    "{.summary.pods.x}{.nope}{.nope[0]}{.nope[*].x}{.sessions.pod}",
    "{ .metadata.name }{ range .sessions[*] }{ .pod }{ end }",
    '{"it\'s \\"}\\" \\\\n"}',
    "no braces \\n }",
]


def test_each_template_prints_what_kubectl_prints(tmp_path: Path) -> None:
    path = tmp_path / "document"
    path.write_text(json.dumps(DOCUMENT))
    all_of_them = "{'|'}".join(TEMPLATES)
    label = ("label", "--local", "--filename", str(path), "a=b")
    done = subprocess.run(
        [str(require("kubectl")["kubectl"]), *label, "--output", f"jsonpath={all_of_them}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    ours = {template: render(parse(template), DOCUMENT) for template in TEMPLATES}
    assert ours == dict(zip(TEMPLATES, done.stdout.split("|"), strict=True))


def test_numbers_of_both_kinds_and_no_value_can_be_compared() -> None:
    for filter_, pods in (
        ("left<60", "a b"),
        ("left>=12.5", "a c"),
        ("left<007", "b"),
        (f"left<{'9' * 5000}", "a b c"),
        ("by!='x'", "a"),
    ):
        assert render(parse(f"{{.sessions[?(@.{filter_})].pod}}"), DOCUMENT) == pods


def test_text_of_others_cannot_control_the_terminal() -> None:
    assert render(parse("{.x} {.y}"), {"x": "\x1b[2J\u202e", "y": ["\x9b"]}) == (
        '\\u001b[2J\\u202e ["\\u009b"]'
    )


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{.sessions", "'{.sessions': there is no } to this {"),
        ("{end}", "there is no {range} before it"),
        ("{range .sessions[*]}{.pod}", "a {range} has no {end}"),
        ("", "a template is missing"),
        ("{}", "a path is missing"),
        ("{.}", "'.': not supported here"),
        ("{sessions}", "'sessions': not supported here"),
        ("{..pod}", "'..pod': not supported here; use -o json and jq"),
        ("{.sessions[0:2]}", "'[0:2]': not supported here"),
        ("{.sessions[0,1]}", "'[0,1]': not supported here"),
        ("{.sessions[3]}", "'[3]': the list has 3 elements"),
        (f"{{.sessions[{'9' * 5000}]}}", "not supported here"),
        ("{.summary[0]}", "'[0]': the value is no list"),
        ("{.summary[*]}", "'[*]': the fields of an object have no order"),
        ("{.sessions[?(@.state==1)]}", "'==1': the value is \"ok\""),
    ],
)
def test_what_is_not_supported_is_refused_with_its_part(template: str, words: str) -> None:
    with pytest.raises(CommandError) as refused:
        render(parse(template), DOCUMENT)
    assert words in str(refused.value)
    assert refused.value.code == EXIT_SETTINGS
