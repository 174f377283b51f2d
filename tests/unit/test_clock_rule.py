"""What mypy cannot say of the two clocks: a float that is a point in time escapes the types.

`test_time_types.py` has what mypy refuses.
"""

import ast
from pathlib import Path

import pytest

import reconciler

EPOCH_NAMES = ("now_s", "expires_s", "issued_s", "epoch_s")
"""Names that are seconds since the epoch everywhere."""

LOOP_TIMES = {"telemetry/loop_lag.py"}
"""Modules with times of the event loop, which is neither of the two clocks."""

READERS = {
    "clock.py",  # the injected clock
    "net/resolver.py",  # threads of look-ups, shared by two loops
    "telemetry/batch_exporter.py",  # a thread of its own
    "telemetry/http_server.py",  # the age of connections, before there is a clock
    "telemetry/otlp_adapter.py",  # the exporter's thread; durations alone
}
"""Modules that read a clock of the machine themselves."""


def annotations(source: str) -> list[tuple[str, str]]:
    """Return the annotated names of a module, and their types."""
    found: list[tuple[str, ast.expr | None]] = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.arg(arg=name, annotation=kind):
                found.append((name, kind))
            case ast.AnnAssign(target=ast.Name(id=name) | ast.Attribute(attr=name)):
                found.append((name, node.annotation))
            case ast.FunctionDef(name=name, returns=kind):
                found.append((name, kind))
            case ast.AsyncFunctionDef(name=name, returns=kind):
                found.append((name, kind))
    return [(name, ast.unparse(kind)) for name, kind in found if kind is not None]


def untyped_points(source: str) -> list[str]:
    """Return the names of points in time that are annotated as numbers."""
    return [
        name
        for name, kind in annotations(source)
        if "float" in kind and (name.endswith("_at") or name == "at" or name in EPOCH_NAMES)
    ]


def reads_a_clock(source: str) -> bool:
    return any(
        isinstance(node, ast.Attribute)
        and ast.unparse(node) in ("time.time", "time.monotonic", "datetime.now")
        for node in ast.walk(ast.parse(source))
    )


def product() -> dict[str, str]:
    """Return the source of each module of the product, by its path."""
    package = Path(reconciler.__file__).parent
    paths = {str(path.relative_to(package)): path for path in package.rglob("*.py")}
    return {name: path.read_text() for name, path in paths.items() if not name.startswith("lab/")}


@pytest.mark.parametrize(
    "source",
    [
        "def f(now_at: float) -> None: ...",
        "class A:\n    expires_s: float | None = None",
        "def next_at(self) -> float | None: ...",
        "self._asked_at: dict[str, float] = {}",
    ],
)
def test_a_point_that_is_a_number_is_found(source: str) -> None:
    assert untyped_points(source)


@pytest.mark.parametrize(
    "source", ["def f(now_at: Instant, wait_s: float) -> None: ...", "expires_s: EpochTime = NEVER"]
)
def test_a_typed_point_or_a_duration_is_not(source: str) -> None:
    assert not untyped_points(source)


def test_no_point_in_time_is_a_number() -> None:
    assert {name for name, source in product().items() if untyped_points(source)} == LOOP_TIMES


def test_the_machines_clocks_are_read_in_few_modules() -> None:
    assert {name for name, source in product().items() if reads_a_clock(source)} == READERS
