"""Changes a valid sample: whole tokens of JSON, YAML, URLs and headers, and single bytes."""

import re
from random import Random

_WORDS = re.compile(rb'"(?:[^"\\]|\\.)*"|[A-Za-z0-9_+/=-]+|\s+|[^\w\s"]', re.DOTALL)
_VALUES = re.compile(rb'"(?:[^"\\]|\\.)*"|(?<=: )[^\n,}\]]+|(?<==)[^\n]+|\w+|\W', re.DOTALL)

DEPTH = 3000
"""More levels than a decoder may follow on a stack of Python's usual size."""

HOSTILE = (
    *(b"null", b"true", b"0", b"-1", b"1.5", b"1e999", b"-0.0", b"NaN", b"Infinity", b'"1"', b'""'),
    *(b"9" * digits for digits in (10, 19, 20, 400, 5000)),
    *(b"[]", b"{}", b"[" * DEPTH, b'{"a":' * DEPTH, b"[" * DEPTH + b"]" * DEPTH),
    *(b'"\\ud800"', b'"\\u0000"', b"\\", b'"', b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\0"),
    *(b'"' + b"x" * length + b'"' for length in (400, 70_000)),
    *(
        b"\r\n",
        b"\n",
        b"\t",
        b" ",
        b"%ff",
        b"%00",
        b"+",
        b"=",
        b":",
        b"@",
        b"[",
        b"://",
        b"..",
        b"*",
    ),
    *("\u202e\u2028\u0661\u00e9\U0001f511".encode(), b"0x" + b"f" * 5000, b"1_0", b"!!binary a"),
    *(b"&a [*a, *a]", b"<<: *a", b"- ", b"2026-01-31T12:00:00Z", b"9999-12-31T23:59:60-99:99"),
)
"""What takes the place of a token: another type, a number or text beyond any limit, no UTF-8."""


def mutated(sample: bytes, random: Random) -> bytes:
    """Return the sample after one to four changes."""
    tokens = random.choice((_WORDS, _VALUES)).findall(sample) or [b""]
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(tokens))
        match random.randrange(8):
            case 0 | 1 | 2:
                tokens[at] = random.choice(HOSTILE)
            case 3:
                tokens.insert(at, random.choice(HOSTILE))
            case 4:
                del tokens[at : at + random.randint(1, 8)]
            case 5:
                tokens[at:at] = tokens[at : at + random.randint(1, 8)]
            case 6:
                tokens[at] = random.choice(tokens)
            case _:
                position = random.randrange(len(tokens[at]) + 1)
                byte = bytes([random.randrange(256)])
                tokens[at] = tokens[at][:position] + byte + tokens[at][position + 1 :]
        tokens = tokens or [b""]
    return b"".join(tokens)
