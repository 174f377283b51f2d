"""No expression mixes instants of the two clocks; types cannot show it, since sums are floats.

A value of `Clock.wall()` is wall time, as is `now_s`. A value of `Clock.monotonic()` is monotonic
time, as is every name that ends in `_at`.
"""

import ast
from pathlib import Path

import pytest

import reconciler

OFFSET = "self._clock.wall() - self._clock.monotonic()"
"""The one form that is meant: how far the clocks are apart at this moment."""


def clocks_of(node: ast.expr) -> set[str]:
    """Return the clocks of an operand's instants; the difference of two of one clock has none."""
    match node:
        case ast.Call(func=ast.Attribute(attr="wall")):
            return {"wall"}
        case ast.Call(func=ast.Attribute(attr="monotonic")):
            return {"monotonic"}
        case ast.Call(func=ast.Name(id="min" | "max"), args=arguments):
            return set().union(*map(clocks_of, arguments))
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return {"monotonic"} if name.endswith("_at") else {"wall"} if name == "now_s" else set()
        case ast.BinOp(left=left, op=ast.Sub(), right=right) if len(
            clocks_of(left)
        ) == 1 and clocks_of(left) == clocks_of(right):
            return set()
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub(), right=right):
            return clocks_of(left) | clocks_of(right)
    return set()


def mixed_in(source: str) -> list[str]:
    """Return the sums, differences and comparisons that hold instants of both clocks."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub(), right=right):
                clocks = clocks_of(left) | clocks_of(right)
            case ast.Compare(left=left, comparators=others):
                clocks = set().union(clocks_of(left), *map(clocks_of, others))
            case _:
                continue
        if len(clocks) > 1:
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize(
    "source",
    [
        "clock.wall() < deadline_at",
        "clock.monotonic() - now_s",
        "min(self._due_at, self._clock.wall()) + 5",
        "now_s + 3 > self._clock.monotonic()",
    ],
)
def test_a_mixture_is_found(source: str) -> None:
    assert mixed_in(source)


@pytest.mark.parametrize(
    "source",
    [
        "clock.monotonic() - began_at > 3",
        "clock.wall() + (now_at - began_at)",
        "expires_s - clock.wall() < 60",
        "format_utc(clock.wall()) + str(now_at)",
    ],
)
def test_one_clock_or_a_duration_is_no_mixture(source: str) -> None:
    assert not mixed_in(source)


def test_no_expression_mixes_the_clocks() -> None:
    package = Path(reconciler.__file__).parent
    found = {
        (str(path.relative_to(package)), mixture)
        for path in package.rglob("*.py")
        for mixture in mixed_in(path.read_text())
    }
    assert found == {("app/telemetry.py", OFFSET), ("tokens/issuer_time.py", OFFSET)}
