"""kubectl's JSONPath templates: the part that documents like ours need (pure).

Text outside braces is printed as it is. In braces stands a path, a quoted text, `range PATH` or
`end`. A path has fields (`.a`, `['a']`), elements (`[0]`, `[-1]`, `[*]`) and filters
(`[?(@.a=="x")]`, `[?(@.a)]`). The rest of client-go's syntax (`..`, slices, unions) is refused, and
numbers of both kinds can be compared. Source: client-go `util/jsonpath`.
"""

import json
import operator
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from reconciler.cli.exit_codes import EXIT_SETTINGS, CommandError

_TEXT = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
_FIELD = r"\.[A-Za-z_][\w-]*"
_VALUE = rf"{_TEXT}|-?[0-9]+(?:\.[0-9]+)?|true|false"
_STEP = re.compile(
    rf"({_FIELD})|\['([^']+)'\]|\[(-?[0-9]{{1,9}}|\*)\]"
    rf"|\[\?\(\s*@((?:{_FIELD})+)\s*(?:(==|!=|<=|>=|<|>)\s*({_VALUE})\s*)?\)\]"
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_NODE = re.compile(rf"[^{{]+|\{{\s*((?:{_TEXT}|[^{{}}'\"])*)\}}")

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

Step = Callable[[Any], Iterator[Any]]
"""Gives the values that a part of a path selects in one value."""

Path = list[Step]


@dataclass(slots=True)
class Template:
    """A template in order: text, paths, and ranges, which have a path and a template."""

    nodes: "list[str | Path | tuple[Path, Template]]" = field(default_factory=list)


def parse(template: str) -> Template:
    """Read a template; raises `CommandError` for what is wrong or not supported."""
    if not template:
        raise _refused(template, "a template is missing")
    stack: list[Template] = [Template()]
    at = 0
    while at < len(template):
        if (node := _NODE.match(template, at)) is None:
            raise _refused(template[at:], "there is no } to this {")
        at = node.end()
        inside = node[1]
        if inside is None:
            stack[-1].nodes.append(node[0])
        elif re.fullmatch(_TEXT, inside := inside.strip()):
            stack[-1].nodes.append(_unquoted(inside))
        elif inside.startswith("range "):
            body = Template()
            stack[-1].nodes.append((_path(inside.removeprefix("range ")), body))
            stack.append(body)
        elif inside == "end":
            if len(stack) == 1:
                raise _refused(node[0], "there is no {range} before it")
            stack.pop()
        else:
            stack[-1].nodes.append(_path(inside))
    if len(stack) > 1:
        raise _refused(template, "a {range} has no {end}")
    return stack[0]


def render(template: Template, document: Any) -> str:
    """Return the text for a document; text of others cannot control the terminal.

    Raises:
        CommandError: An index is outside of its list, or two values cannot be compared.
    """
    parts: list[str] = []
    for node in template.nodes:
        if isinstance(node, str):
            parts.append(node)
        elif isinstance(node, list):
            parts.append(" ".join(_text(value) for value in _select(node, document)))
        else:
            path, body = node
            parts += [render(body, value) for value in _select(path, document)]
    return "".join(parts)


def _path(text: str) -> Path:
    text = text.strip()
    at = 1 if text[:1] in ("$", "@") else 0
    steps: Path = []
    while at < len(text):
        if (found := _STEP.match(text, at)) is None:
            raise _refused(text[at:], "not supported here; use -o json and jq")
        at = found.end()
        steps.append(_step(found))
    if not text:
        raise _refused("{}", "a path is missing")
    return steps


def _step(found: re.Match[str]) -> Step:
    name, quoted, index, left, compare, right = found.groups()
    if name or quoted:
        return _field(quoted or name[1:])
    if index == "*":
        return _elements
    if index:
        return _element(int(index))
    path = [_field(part) for part in left.split(".")[1:]]
    if not compare:
        return lambda value: (each for each in _elements(value) if [*_select(path, each)])
    wanted = _literal(right)
    return lambda value: (
        each
        for each in _elements(value)
        for found in [*_select(path, each)][:1]
        if _holds(found, compare, wanted)
    )


def _literal(text: str) -> str | float | bool:
    if text[0] in "'\"":
        return _unquoted(text)
    return text == "true" if text in ("true", "false") else float(text)


def _select(path: Path, value: Any) -> list[Any]:
    values = [value]
    for step in path:
        values = [selected for each in values for selected in step(each)]
    return values


def _field(name: str) -> Step:
    return lambda value: iter([value[name]] if isinstance(value, dict) and name in value else [])


def _elements(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        raise _refused("[*]", "the fields of an object have no order")
    return iter(value if isinstance(value, list) else [])


def _element(index: int) -> Step:
    def select(value: Any) -> Iterator[Any]:
        if value is None:
            return
        if not isinstance(value, list):
            raise _refused(f"[{index}]", "the value is no list")
        if not -len(value) <= index < len(value):
            raise _refused(f"[{index}]", f"the list has {len(value)} elements")
        yield value[index]

    return select


def _holds(value: Any, compare: str, wanted: Any) -> bool:
    is_number = isinstance(value, int | float) and isinstance(wanted, int | float)
    if type(value) is not type(wanted) and not (is_number and not isinstance(wanted, bool)):
        if value is None:
            return compare == "!="
        raise _refused(f"{compare}{_text(wanted)}", f"the value is {json.dumps(value)}")
    return _COMPARE[compare](value, wanted)


def _text(value: Any) -> str:
    """Return a value as client-go prints it: text without quotes, whole numbers without a point."""
    if isinstance(value, str):
        return "".join(
            json.dumps(sign)[1:-1] if unicodedata.category(sign)[0] == "C" else sign
            for sign in value
        )
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def _unquoted(text: str) -> str:
    signs = {"n": "\n", "r": "\r", "t": "\t"}
    return _ESCAPE.sub(lambda found: signs.get(found[1], found[1]), text[1:-1])


def _refused(part: str, why: str) -> CommandError:
    return CommandError(f"-o jsonpath: {part!r}: {why}", EXIT_SETTINGS)
