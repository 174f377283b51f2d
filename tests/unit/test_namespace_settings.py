"""In which namespaces to work: all, those that are named, those of the platform's projects."""

import pytest

from reconciler.errors import SettingsError
from reconciler.naming import is_namespace
from reconciler.settings import Settings, read_settings

VARIABLE = "RECONCILER_NAMESPACES"


def read(patch: pytest.MonkeyPatch, text: str) -> Settings:
    patch.setenv(VARIABLE, text)
    return read_settings()


@pytest.mark.parametrize(
    ("text", "listed", "finds"),
    [
        ("", [], False),
        ("team-a, team-b,team-a", ["team-a", "team-b"], False),
        ("@platform", [], True),
        ("team-a,@platform", ["team-a"], True),
    ],
)
def test_what_is_named_and_whether_more_are_found(
    monkeypatch: pytest.MonkeyPatch, text: str, listed: list[str], finds: bool
) -> None:
    settings = read(monkeypatch, text)
    assert settings.listed_namespaces == listed
    assert settings.finds_namespaces == finds


@pytest.mark.parametrize("text", ["@all", "team-a,Team", "team/a", "a" * 64, "-a", "@platform,a.b"])
def test_what_is_no_name_is_refused_by_the_variables_name(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    with pytest.raises(SettingsError, match=f"{VARIABLE} must hold names"):
        read(monkeypatch, text)


@pytest.mark.parametrize("name", ["a", "0", "team-a", "ambient-code--team-a", "a" * 63])
def test_names_that_a_namespace_can_have(name: str) -> None:
    assert is_namespace(name)


@pytest.mark.parametrize("name", ["", "A", "a_b", "a.b", "a-", "-a", "a" * 64, "a\n", "../pods"])
def test_names_that_no_namespace_can_have(name: str) -> None:
    assert not is_namespace(name)
