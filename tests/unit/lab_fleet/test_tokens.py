"""What a runner reads from its file, and what a validator accepts."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from reconciler.clock import EpochTime
from reconciler.lab.runners.exposure_ledger import UNREADABLE
from reconciler.lab.runners.tokens import expiry_of, read_bearer


def refuse(_token: str) -> Mapping[str, Any]:
    raise ValueError("signature")


@pytest.mark.parametrize(
    ("content", "header"),
    [
        pytest.param(b"abc\n", "Bearer abc", id="stripped"),
        pytest.param(b"a\x00b", "Bearer ", id="control-character"),
        pytest.param("tök".encode(), "Bearer ", id="not-ascii"),
    ],
)
def test_file_content_becomes_a_header(tmp_path: Path, content: bytes, header: str) -> None:
    (tmp_path / "bot-token").write_bytes(content)

    bearer = read_bearer(tmp_path / "bot-token")

    assert bearer is not None
    assert bearer.header() == header
    assert "abc" not in repr(bearer)


@pytest.mark.parametrize("content", [None, b"", b" \n"])
def test_missing_and_empty_files_hold_no_token(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "bot-token").write_bytes(content)

    assert read_bearer(tmp_path / "bot-token") is None


@pytest.mark.parametrize("exp", [None, "soon", math.nan, math.inf, 10**400, []])
def test_unusable_expiry_is_expired_for_ever(exp: object) -> None:
    assert expiry_of(lambda _: {"exp": exp}, "t") == UNREADABLE


def test_unverifiable_token_is_expired_for_ever() -> None:
    assert expiry_of(refuse, "t") == UNREADABLE
    assert expiry_of(lambda _: {}, "t") == UNREADABLE
    assert expiry_of(lambda _: {"exp": 17}, "t") == EpochTime(17)
