"""A kubeconfig's contexts: kubectl's choice of namespace, and one clear line for each mistake."""

import json
from pathlib import Path

import pytest

from reconciler.errors import SettingsError
from reconciler.kube.auth.contexts import Context, context_names, read_context


def write(path: Path, contexts: dict[str, str | None], current: str = "") -> str:
    """Write a kubeconfig; `contexts` has each one's namespace."""
    path.write_text(
        json.dumps(
            {
                "current-context": current,
                "contexts": [
                    {"name": name, "context": {"cluster": "c"} | ({"namespace": ns} if ns else {})}
                    for name, ns in contexts.items()
                ],
                "clusters": [],
                "users": [],
            }
        )
    )
    return str(path)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (None, Context("here", "team-a")),
        ("there", Context("there", "default")),
    ],
)
def test_a_context_brings_its_namespace(tmp_path: Path, asked: str | None, found: Context) -> None:
    path = write(tmp_path / "config", {"here": "team-a", "there": None}, "here")
    assert read_context(path, asked) == found
    assert context_names(path) == ["here", "there"]


@pytest.mark.parametrize(
    ("currents", "found"),
    [
        (("", "two"), Context("two", "team-b")),
        (("one", "two"), Context("one", "team-a")),
        (("one", ""), Context("one", "team-a")),
    ],
)
def test_several_files_are_one_and_the_first_current_context_counts(
    tmp_path: Path, currents: tuple[str, str], found: Context
) -> None:
    (tmp_path / "empty").write_text("")
    paths = [
        write(tmp_path / "a", {"one": "team-a"}, currents[0]),
        str(tmp_path / "missing"),
        write(tmp_path / "b", {"two": "team-b"}, currents[1]),
        str(tmp_path / "empty"),
    ]
    assert read_context(":".join(paths), None) == found
    assert context_names(":".join(paths)) == ["one", "two"]


@pytest.mark.parametrize(
    ("current", "asked", "words"),
    [
        ("", None, "no current context; name one by --context"),
        ("gone", None, "no context 'gone'; there is: here"),
        ("here", "nope", "no context 'nope'; there is: here"),
    ],
)
def test_a_wrong_context_is_named_with_those_there_are(
    tmp_path: Path, current: str, asked: str | None, words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        read_context(write(tmp_path / "config", {"here": None}, current), asked)


@pytest.mark.parametrize("text", ["{", "[]", "contexts: 3", "contexts: [{}]", "\0"])
def test_a_file_that_is_no_kubeconfig_is_said_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(SettingsError, match=f"KUBECONFIG {path}: not a readable kubeconfig"):
        read_context(str(path), None)


def test_a_file_that_is_not_there_is_said_so() -> None:
    with pytest.raises(SettingsError, match="KUBECONFIG /nowhere/config: no such file"):
        read_context("/nowhere/config", None)
