"""Label and field selectors: text to a predicate.

Source: apimachinery `pkg/labels/selector.go` and `pkg/fields/selector.go`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.lab.apiserver.kinds import Kind, Object
from reconciler.lab.apiserver.status_errors import bad_request

Labels = Mapping[str, str]
Predicate = Callable[[Object], bool]
_Requirement = Callable[[Labels], bool]

_KEY = r"[A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?"
_SET = re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^()]*)\)\Z")
_EQUAL = re.compile(rf"({_KEY})\s*(!=|==|=)\s*([-A-Za-z0-9_.]*)\Z")
_EXISTS = re.compile(rf"(!?)\s*({_KEY})\Z")


@dataclass(frozen=True, slots=True)
class Selection:
    """The part of a kind that a list or watch covers, as the client sent it."""

    namespace: str = ""
    labels: str = ""
    fields: str = ""

    @property
    def everything(self) -> bool:
        """Whether there is no selector (there may be a namespace)."""
        return not self.labels and not self.fields

    def compile(self, kind: Kind) -> Predicate:
        """Return the predicate.

        Raises:
            StatusError: 400 for a selector that cannot be read or names an unknown field.
        """
        tests: list[Predicate] = []
        if self.namespace and kind.namespaced:
            namespace = self.namespace
            tests.append(lambda item: item["metadata"].get("namespace") == namespace)
        tests += [_on_labels(requirement) for requirement in parse_labels(self.labels)]
        tests += _field_tests(kind, self.fields)
        return lambda item: all(test(item) for test in tests)


def _on_labels(requirement: _Requirement) -> Predicate:
    return lambda item: requirement(item["metadata"].get("labels") or {})


def parse_labels(text: str) -> list[_Requirement]:
    """Read a label selector; all of its requirements must hold. Raises `StatusError`."""
    return [_requirement(part.strip(), text) for part in _split(text) if part.strip()]


def _split(text: str) -> list[str]:
    """Split at the commas that are not inside `in (...)`."""
    return re.split(r",(?![^()]*\))", text) if text else []


def _requirement(part: str, whole: str) -> _Requirement:
    if found := _SET.match(part):
        key, operator, listed = found.groups()
        values = {value.strip() for value in listed.split(",")}
        if operator == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if found := _EQUAL.match(part):
        key, operator, value = found.groups()
        if operator == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := _EXISTS.match(part):
        absent, key = found.groups()
        return (lambda labels: key not in labels) if absent else (lambda labels: key in labels)
    if not re.match(_KEY, part.lstrip("! ")):
        raise bad_request(f"found '{part[0]}', expected: !, identifier, or 'end of string'")
    raise bad_request(f"unable to parse requirement: {part!r} in {whole!r}")


def _field_tests(kind: Kind, text: str) -> list[Predicate]:
    return [_field_test(kind, part.strip(), text) for part in text.split(",") if part.strip()]


def _field_test(kind: Kind, part: str, whole: str) -> Predicate:
    found = re.match(r"([A-Za-z.]+)(!=|==|=)(.*)\Z", part)
    if found is None:
        raise bad_request(f"invalid selector: '{whole}'; can't understand '{part}'")
    path, operator, value = found.groups()
    if path not in kind.fields:
        raise bad_request(f"field label not supported: {path}")
    steps, wanted = path.split("."), operator != "!="
    return lambda item: (_value(item, steps) == value) is wanted


def _value(item: Object, steps: list[str]) -> str:
    """Return a field as text; an absent one is "", as in the real server."""
    found: Any = item
    for step in steps:
        found = found.get(step) if isinstance(found, Mapping) else None
        if found is None:
            return ""
    return str(found).lower() if isinstance(found, bool) else str(found)
