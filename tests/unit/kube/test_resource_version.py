import pytest

from reconciler.kube.api import has_reached, is_newer


@pytest.mark.parametrize(
    ("version", "than", "newer"),
    [
        ("10", "9", True),
        ("9", "10", False),
        ("9", "9", False),
        ("1" + "0" * 5000, "9" * 5000, True),
        ("010", "9", False),
        ("9", "0", False),
        ("abc", "abb", False),
        ("", "1", False),
        ("1", "", False),
        ("²", "1", False),
        ("-2", "1", False),
    ],
)
def test_only_well_formed_versions_have_an_order(version: str, than: str, newer: bool) -> None:
    assert is_newer(version, than) is newer


def test_an_opaque_version_has_reached_itself_and_nothing_else() -> None:
    assert has_reached("abc", "abc")
    assert not has_reached("abd", "abc")
    assert has_reached("10", "9")
    assert not has_reached("9", "10")
