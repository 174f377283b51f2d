"""`python -m tests.wording`: no word that misled readers, in documents and docstrings.

The list has words that have a standard term, and literary words that a reader whose first language
is not English has to look up. In documents and manifests each one is an error, and some are in
tests; code and quotations are not read. In docstrings and comments of the product their rate has a
limit.

Exit codes: 0 none was found and the rate is within its limit; 1 otherwise.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

INSTEAD = {
    "all the same": "still",
    "alive": "valid (a token), running (a process)",
    "anew": "again",
    "anybody": "any account, any client",
    "at hand": "held, available",
    "away": "unreachable",
    "beside": "next to, in addition to, with",
    "dead": "expired (a token), ended (a process)",
    "deposed": "no longer leader",
    "die": "expire (a token), end (a process)",
    "died": "expired (a token), ended (a process)",
    "dies": "expires (a token), ends (a process)",
    "for ever": "without end",
    "hence": "so, therefore",
    "in hand": "held, in progress",
    "in sight": "observed",
    "lest": "so that ... not",
    "let go": "unwatched, released, removed",
    "meanwhile": "in the meantime, during that time",
    "nobody": "no replica, no program, no person: name it",
    "on its way": "sent, in progress",
    "reckoned": "estimated, calculated",
    "somebody": "another writer, a person, a program: name it",
    "spare token": "standby token",
    "stands still": "stops",
    "stood": "was",
    "tells": "shows, says, reports",
    "thereby": "by that, so",
    "told": "shown, reported, configured",
    "whatever": "any, for any",
    "whoever": "a program that, an account that, a person who",
    "whom": "rewrite the sentence",
}
"""Word or phrase -> what to write."""

IN_TESTS = frozenset({"away", "nobody", "told"})
"""Words that are errors in the names, docstrings and comments of the tests, too."""

LIMIT_PER_1000 = 0.2
"""Of the words of all docstrings and comments below reconciler/. To be lowered, never raised."""

_PATTERN = re.compile(rf"\b({'|'.join(re.escape(word) for word in INSTEAD)})\b", re.IGNORECASE)
_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`[^`\n]*`")
_QUOTED = re.compile(r"\"[^\"]*\"")
_NOT_NEWLINE = re.compile(r"[^\n]")


def documents() -> list[Path]:
    """Return the files in which each of the words is an error."""
    names = (
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "CONTRIBUTING.md",
        "Makefile",
        "Dockerfile",
        ".ci/run",
    )
    folders = (("docs", "*.md"), ("manifests", "*.yaml"), ("manifests", "*.env"))
    found = [path for folder, glob in folders for path in sorted((ROOT / folder).rglob(glob))]
    return [*(ROOT / name for name in names), *found]


def without_code(text: str) -> str:
    """Return a document with code blocks, inline code and quotations blank, line by line."""
    for pattern in (_BLOCK, _INLINE):
        text = pattern.sub(_blank, text)
    return "\n\n".join(_QUOTED.sub(_blank, paragraph) for paragraph in text.split("\n\n"))


def misleading(text: str) -> list[tuple[int, str]]:
    """Return line number and word, lower case, of each word of the list."""
    return [
        (text.count("\n", 0, match.start()) + 1, match[0].lower())
        for match in _PATTERN.finditer(text)
    ]


def prose(source: str) -> Iterator[str]:
    """Yield the docstrings, of attributes too, and the comments of a module."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield text
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def names(source: str) -> Iterator[str]:
    """Yield the names of a module's functions and classes, as words."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name.replace("_", " ")


def in_tests(source: str) -> Iterator[str]:
    """Yield each word of `IN_TESTS` in a module's names, docstrings and comments."""
    for text in (*names(source), *map(without_code, prose(source))):
        yield from (word for _, word in misleading(text) if word in IN_TESTS)


def rate_per_1000(package: Path) -> float:
    """Return how many words of the list there are in 1,000 words of a package's prose."""
    texts = [text for path in package.rglob("*.py") for text in prose(path.read_text())]
    words = sum(len(text.split()) for text in texts)
    return 1000 * sum(len(misleading(without_code(text))) for text in texts) / max(words, 1)


def main() -> int:
    code = 0
    for path in documents():
        text = path.read_text()
        readable = without_code(text) if path.suffix == ".md" else text
        for line, word in misleading(readable):
            print(f'{path.relative_to(ROOT)}:{line}: "{word}"; instead: {INSTEAD[word]}')
            code = 1
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for word in in_tests(path.read_text()):
            print(f'{path.relative_to(ROOT)}: "{word}"; instead: {INSTEAD[word]}')
            code = 1
    rate = rate_per_1000(ROOT / "reconciler")
    if rate > LIMIT_PER_1000:
        print(f"reconciler/: {rate:.1f} of the words in 1,000 of docstrings, not {LIMIT_PER_1000}")
        code = 1
    return code


def _blank(match: re.Match[str]) -> str:
    return _NOT_NEWLINE.sub(" ", match[0])


if __name__ == "__main__":
    sys.exit(main())
