"""The search language of the platform's lists, as far as our client uses it.

Comparisons (`=`, `!=`, `<>`, `<`, `<=`, `>`, `>=`, `in (...)`) of a column with text in single
quotes (a quote in it is doubled), joined by `and`, `or` and parentheses; `and` binds tighter.
Source: the grammar of tree-search-language, which the platform's framework uses.
"""

import operator
import re
from collections.abc import Callable, Mapping

Row = Mapping[str, str]
Predicate = Callable[[Row], bool]

_TOKEN = re.compile(r"\s*(?:('(?:[^']|'')*')|([A-Za-z_]\w*)|(<=|>=|<>|!=|[=<>(),]))")
_OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_WORDS = frozenset({"and", "or", "in", "not", "like", "is", "null", "between"})


class BadSearch(ValueError):
    """The text is not valid in the search language."""


class UnknownColumn(ValueError):
    """The text is valid, but names a column that the database does not have."""


def parse(text: str, columns: frozenset[str]) -> Predicate:
    """Return the predicate of a search; an absent field matches nothing, as NULL in SQL.

    Raises:
        BadSearch: As the platform's 400.
        UnknownColumn: As the platform's 500.
    """
    parser = _Parser(_tokens(text))
    predicate = parser.either()
    if parser.peek():
        raise BadSearch("something follows the condition")
    if unknown := parser.columns - columns:
        raise UnknownColumn(f"no column {min(unknown)}")
    return predicate


def _tokens(text: str) -> list[str]:
    tokens, end = [], 0
    text = text.rstrip()
    while end < len(text):
        match = _TOKEN.match(text, end)
        if match is None:
            raise BadSearch(f"cannot read on at character {end}")
        tokens.append(match.group().strip() if match.group(1) is None else match.group(1))
        end = match.end()
    return tokens


class _Parser:
    """Recursive descent; `columns` collects the columns that the text names."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._next = 0
        self.columns: set[str] = set()

    def peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _take(self) -> str:
        token = self.peek()
        self._next += 1
        return token

    def _take_if(self, word: str) -> bool:
        if self.peek().lower() != word:
            return False
        self._next += 1
        return True

    def _expect(self, token: str) -> None:
        if self._take() != token:
            raise BadSearch(f"{token} expected")

    def either(self) -> Predicate:
        parts = [self._both()]
        while self._take_if("or"):
            parts.append(self._both())
        return lambda row: any(part(row) for part in parts)

    def _both(self) -> Predicate:
        parts = [self._condition()]
        while self._take_if("and"):
            parts.append(self._condition())
        return lambda row: all(part(row) for part in parts)

    def _condition(self) -> Predicate:
        if self._take_if("("):
            inner = self.either()
            self._expect(")")
            return inner
        column = self._column()
        if self._take_if("in"):
            texts = self._texts()
            return lambda row: row.get(column) in texts
        compare = _OPERATORS.get(self._take())
        if compare is None:
            raise BadSearch("an operator is expected")
        text = self._text()
        return lambda row: (value := row.get(column)) is not None and compare(value, text)

    def _column(self) -> str:
        column = self._take()
        if not column.isidentifier() or column.lower() in _WORDS:
            raise BadSearch("a column is expected")
        self.columns.add(column)
        return column

    def _text(self) -> str:
        token = self._take()
        if not token.startswith("'"):
            raise BadSearch("text in quotes is expected")
        return token[1:-1].replace("''", "'")

    def _texts(self) -> frozenset[str]:
        self._expect("(")
        texts = [self._text()]
        while self._take_if(","):
            texts.append(self._text())
        self._expect(")")
        return frozenset(texts)
