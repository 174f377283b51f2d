"""Makes another program's output safe to show: one bounded line without secrets (pure).

A plug-in's last words name the cause ("Unable to locate credentials"), and some quote a request or
an answer. What looks like a secret is replaced: text in the position of a credential, and long
words of letters and digits. Plain words, paths, host names, addresses and UUIDs stay.
"""

import re

LIMIT = 400
"""Last characters that are shown: a program gives the reason of its end at the end."""

REDACTED = "[redacted]"

_READ_BYTES = 16 * 1024
"""Last bytes that are read: the rules are for some lines, not for files."""

_PIECE = 16
"""A word of letters and digits of this length or more counts as a secret."""

_KEY = (
    r"[\w-]{0,40}(?:token|secret|passw(?:or)?d|passphrase|api[-_]?key|assertion|cookie|signature)"
    r"[\w-]{0,40}"
)
"""A name of a secret; bounded, so that a long run of letters is not matched from each letter."""

_RULES = (
    (re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])"), ""),
    (
        re.compile(r"-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|\Z)", re.DOTALL),
        REDACTED,
    ),
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@]+@", re.IGNORECASE), rf"\1{REDACTED}@"),
    (
        re.compile(r"\b((?:proxy-)?authorization\b['\"]?\s*[:=]\s*['\"]?)[^\r\n]*", re.IGNORECASE),
        rf"\1{REDACTED}",
    ),
    (re.compile(r"\b(bearer|basic)\s+[^\s'\"]{8,}", re.IGNORECASE), rf"\1 {REDACTED}"),
    (
        re.compile(
            rf"(['\"]{_KEY}['\"]\s*:\s*)(?:\"[^\"]*(?:\"|\Z)|'[^']*(?:'|\Z))", re.IGNORECASE
        ),
        rf"\1{REDACTED}",
    ),
    (
        re.compile(rf"(\b{_KEY}\s*=\s*)(?:\"[^\"]*\"|'[^']*'|[^\s&,;]+)", re.IGNORECASE),
        rf"\1{REDACTED}",
    ),
    (re.compile(r"(\bpass(?:word|wd|phrase)\s*:\s*)\S+", re.IGNORECASE), rf"\1{REDACTED}"),
    # "token: invalid_grant" and "secret: not found" are causes; "token: a1b2c3" is none.
    (
        re.compile(rf"(\b(?i:{_KEY})\s*:\s*)(?=\S*\d)(?=\S*[a-z])[^\s,;]{{6,}}"),
        rf"\1{REDACTED}",
    ),
    (re.compile(rf"(--{_KEY}\s+)(?!-)\S+", re.IGNORECASE), rf"\1{REDACTED}"),
    (re.compile(r"\beyJ[\w.~+/=-]+"), REDACTED),
)

_WORD = re.compile(r"[A-Za-z0-9+/=_-]{16,}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def shown_output(output: bytes, *, is_cut: bool = False) -> str:
    """Return the last words of an output, in one line of `LIMIT` characters at most.

    Args:
        is_cut: The beginning is missing, so that the first word may be incomplete.
    """
    text = output[-_READ_BYTES:].decode(errors="replace")
    if is_cut or len(output) > _READ_BYTES:
        text = text.partition("\n")[2] or text.partition(" ")[2]
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    text = _WORD.sub(lambda word: REDACTED if _is_opaque(word[0]) else word[0], text)
    words = "".join(sign if sign.isprintable() else " " for sign in text).split()
    line = " ".join(words)
    return line if len(line) <= LIMIT else f"...{line[3 - LIMIT :]}"


def _is_opaque(word: str) -> bool:
    if _UUID.fullmatch(word):
        return False
    pieces = re.split(r"[/_-]", word)
    return any(len(piece) >= _PIECE and _is_mixed(piece) for piece in pieces) or (
        # base64url has a dash or an underscore in every thirty signs; a path has slashes.
        len(word) >= 2 * _PIECE and "/" not in word and _is_mixed(word) and word != word.lower()
    )


def _is_mixed(piece: str) -> bool:
    return any(sign.isdigit() for sign in piece) and any(sign.isalpha() for sign in piece)
