"""The search for secrets in a text: whole or in part, plain or encoded. Pure.

A text is taken apart into words, and each word is searched as it is and in every form that it can
be decoded from: percent-encoding, the escapes of JSON, base64 of both alphabets at each of its
alignments, also one inside the other. So the secrets are indexed once, in plain.
"""

import base64
import re
from collections.abc import Iterable, Iterator
from urllib.parse import unquote

PIECE = 16
"""Characters of a part of a secret that are a leak, plain or encoded."""

SHORTEST = 8
"""A shorter value is no secret that a search can find: "t", "admin", "secret"."""

JWT = re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}")
"""A JWT's header and the beginning of its claims; needs no knowledge of the run."""

LAB_CREDENTIAL = re.compile(r"lab-(?:client|admin|reconciler|kubelet)-[0-9a-f]{8,}")
"""The client secret and the bearer tokens of a lab cluster."""

_WORD = re.compile(rf"[^\s\"'<>]{{{SHORTEST},}}")
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{11,}")
_PRINTABLE = re.compile(rf"[\x21-\x7e]{{{SHORTEST},}}")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\(.)", re.DOTALL)
_STANDARD = str.maketrans("-_", "+/")

_DEPTH = 3
"""Encodings inside one another that are undone."""

_PIECE_DECODED = 9
"""Bytes that are certain to be whole in a piece of base64, at the worst of its alignments."""

_REACH = 256
"""Characters on each side of an anchor that are compared: enough for a piece, and for most whole
secrets."""

_MOST = 8
"""Places of one anchor that are kept: a secret such as "aaaa..." has it everywhere."""

_ANCHOR, _STRIDE = 6, 4
"""Each part of nine characters of a secret contains six that begin at a multiple of four."""


class SecretIndex:
    """Finds its secrets in texts. `sources` has a name for each: no result contains a secret.

    Cost: 30 KB and 0.1 ms for a JWT of 700 characters; 10 us for a new word of 40 characters.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.sources: dict[str, str] = {}
        self._bodies: list[tuple[str, str]] = []
        self._anchors: dict[str, list[tuple[int, int]]] = {}
        for value in secrets:
            self.add(value, "a secret")

    def add(self, value: str, source: str) -> None:
        """Add a secret; a known one and one that is too short change nothing.

        Of a JWT its claims and its signature count: the header is that of all tokens of a key.
        """
        if value in self.sources:
            return
        self.sources[value] = source
        header, _, rest = value.partition(".")
        is_jwt = header.startswith("eyJ") and rest
        for word in _WORD.findall(rest if is_jwt else value):
            number = len(self._bodies)
            self._bodies.append((word, source))
            for at in range(0, len(word) - _ANCHOR + 1, _STRIDE):
                places = self._anchors.setdefault(word[at : at + _ANCHOR], [])
                if len(places) < _MOST or places[-1][0] != number:
                    places.append((number, at))

    def source_of(self, text: str) -> str:
        """Return the source of a secret that is in a text, "" if none is."""
        return next(filter(None, map(self.source_of_word, words(text))), "")

    def source_of_word(self, word: str) -> str:
        """Return the same for a single word."""
        if JWT.search(word):
            return "a JWT"
        if LAB_CREDENTIAL.search(word):
            return "a credential of a lab"
        if not self._bodies:
            return ""
        return next(
            filter(None, (self._find(view, least) for view, least in _views(word, PIECE, 0))), ""
        )

    def _find(self, view: str, least: int) -> str:
        anchors = self._anchors
        for at in range(len(view) - _ANCHOR + 1):
            for number, begin in anchors.get(view[at : at + _ANCHOR], ()):
                body, source = self._bodies[number]
                start, end = _common(view, at, body, begin)
                if end - start == len(body) or _is_leak(body[start:end], least):
                    return source
        return ""


def words(text: str) -> set[str]:
    """Return the words of a text that are long enough for a secret."""
    return set(_WORD.findall(text))


def _views(word: str, least: int, depth: int) -> Iterator[tuple[str, int]]:
    """Yield a word and what it decodes to, each with the length of a leak in it."""
    yield word, least
    if depth == _DEPTH:
        return
    if "%" in word and (plain := unquote(word, errors="replace")) != word:
        yield from _views(plain, least, depth + 1)
    if "\\" in word and (plain := _ESCAPE.sub(_unescaped, word)) != word:
        yield from _views(plain, least, depth + 1)
    for run in _ENCODED.findall(word):
        for shift in range(4):
            for plain in _PRINTABLE.findall(_decoded(run[shift:])):
                yield from _views(plain, min(least, _PIECE_DECODED), depth + 1)


def _unescaped(match: re.Match[str]) -> str:
    return chr(int(match[1], 16)) if match[1] else match[2]


def _decoded(run: str) -> str:
    """Return the bytes of base64 of either alphabet, cut to whole bytes, as Latin-1."""
    run = run[: len(run) - (len(run) % 4 == 1)]
    padded = run.translate(_STANDARD) + "=" * (-len(run) % 4)
    return base64.b64decode(padded).decode("latin-1")


def _common(view: str, at: int, body: str, begin: int) -> tuple[int, int]:
    """Return begin and end, in `body`, of what it shares with `view` around an anchor."""
    start, end = begin, begin + _ANCHOR
    least, most = max(0, begin - _REACH), min(len(body), end + _REACH)
    while (
        start > least and at - (begin - start) and body[start - 1] == view[at - (begin - start) - 1]
    ):
        start -= 1
    while end < most and at + end - begin < len(view) and body[end] == view[at + end - begin]:
        end += 1
    return start, end


def _is_leak(piece: str, least: int) -> bool:
    """Whether a part is long, and not made of plain words as in "obviously-fake-token"."""
    if len(piece) < least:
        return False
    is_upper = any(sign.isupper() for sign in piece)
    is_lower = any(sign.islower() for sign in piece)
    is_digit = any(sign.isdigit() for sign in piece)
    return is_upper + is_lower + is_digit > 1
