"""The lint of words finds what a reader sees, and nothing that is code or a quotation."""

import pytest

from tests import wording


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The issuer is away.", [(1, "away")]),
        ("One line.\nA token that Dies.", [(2, "dies")]),
        ("`away` is a value", []),
        ("```\nThe issuer is away.\n```\nIt is Away.", [(4, "away")]),
        ('It said "the issuer is\naway" and it is away.', [(2, "away")]),
        ("The deadline, and a gateway.", []),
    ],
)
def test_words_are_found_outside_of_code_and_quotations(
    text: str, found: list[tuple[int, str]]
) -> None:
    assert wording.misleading(wording.without_code(text)) == found


def test_docstrings_of_attributes_and_comments_are_read() -> None:
    source = '"""One."""\nLIMIT = 1\n"""Two."""\ntext = "not this"  # Three.\n'
    assert list(wording.prose(source)) == ["One.", "Two.", "# Three."]


def test_names_docstrings_and_comments_of_tests_are_read() -> None:
    source = 'def test_it_is_told() -> None:\n    """It is away, and dead."""\n'
    assert list(wording.in_tests(source + "    text = 'nobody'  # Nobody.\n")) == [
        "told", "away", "nobody",
    ]  # fmt: skip


def test_every_word_has_a_word_to_write_instead() -> None:
    assert all(wording.INSTEAD.values())
    assert all(wording.misleading(word) == [(1, word)] for word in wording.INSTEAD)
