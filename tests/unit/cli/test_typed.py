"""What a command line may cost before a command is chosen."""

import subprocess
import sys
from typing import Any

import pytest
from typer.main import get_command

from reconciler.cli.exit_codes import CommandError
from reconciler.cli.main import app
from reconciler.cli.pod_selection import PodRef, PodSelection, parse_target
from reconciler.cli.wait import parse_duration

HEAVY = ("aiohttp", "asyncio", "kubernetes_asyncio", "msgspec", "pydantic", "structlog", "yaml")


@pytest.mark.parametrize("module", ["reconciler.cli.main", "reconciler.cli.kubectl_plugin"])
def test_help_imports_nothing_that_only_a_command_needs(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{*{HEAVY}}} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("5m", 300), ("1h30m", 5400), ("1.5s", 1.5), ("0s", 0), ("1h1m1s", 3661)],
)
def test_a_time_is_read_as_kubectl_reads_it(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "s", "-1s", "1d", "1s1m", " 1s"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match="not a time like 30s"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "options", "target"),
    [
        ("one", {}, PodRef("default-ns", "one")),
        ("one", {"namespace": "team"}, PodRef("team", "one")),
        ("team/one", {}, PodRef("team", "one")),
        ("team/one", {"namespace": "team"}, PodRef("team", "one")),
        ("pod/one", {}, PodRef("default-ns", "one")),
        ("pods/one", {"namespace": "team"}, PodRef("team", "one")),
        ("one", {"everywhere": True}, PodRef(None, "one")),
        ("pod/one", {"everywhere": True}, PodRef(None, "one")),
        ("team/one", {"everywhere": True}, PodRef("team", "one")),
    ],
)
def test_a_pod_is_named_with_its_namespace_or_within_one(
    text: str, options: dict[str, Any], target: PodRef
) -> None:
    assert parse_target(text, PodSelection(**options), default="default-ns") == target


@pytest.mark.parametrize("text", ["", "/", "a/", "/b", "a/b/c", "a b", "a,b", "a=b", "..", "a\n"])
def test_what_could_become_another_selector_names_no_pod(text: str) -> None:
    with pytest.raises(CommandError, match="is no pod's name"):
        parse_target(text, PodSelection(), default="default-ns")


def test_renew_is_a_hidden_name_of_refresh() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]  # a group, by its options
    assert commands["renew"].hidden
    assert commands["renew"].callback.__wrapped__ is commands["refresh"].callback.__wrapped__
    assert not commands["refresh"].hidden
