"""The static token: what it says of its life, and the file that holds another one some day."""

import asyncio
import math

import pytest
from structlog.testing import capture_logs

from reconciler.clock import LONG_AGO, NEVER
from reconciler.errors import InvalidToken, SettingsError
from reconciler.lab.simulation.virtual_time import VirtualClock, run_virtual
from reconciler.tokens.static import RELOAD_S, StaticSource
from reconciler.tokens.token import Token
from tests.support import ManualClock
from tests.unit.tokens.support import NEW, OLD, StaticFile, jwt

M = 0.8


def holding(value: str, clock: ManualClock) -> StaticSource:
    return StaticSource(StaticFile(value).read, clock)


def value_of(source: StaticSource) -> str:
    best = source.best()
    assert best is not None
    return best.reveal()


async def test_a_static_token_lives_for_ever_unless_it_says_otherwise() -> None:
    clock = ManualClock()
    endless = holding(OLD, clock)
    limited = holding(jwt(iat=clock.wall_s - 100, exp=clock.wall_s + 800), clock)
    assert (await endless.get(min_remaining=M)).expires_s == NEVER
    assert endless.longest_ttl_s == math.inf
    assert limited.longest_ttl_s == 900
    clock.advance(799)
    assert (await limited.get(min_remaining=M)).remaining_s(clock.now_at) == 1.0
    clock.advance(1)
    assert limited.best() is None
    with pytest.raises(InvalidToken, match="expired"):
        await limited.refresh()
    assert await endless.refresh() is endless.best()
    assert limited.stats().best_remaining_s is None


@pytest.mark.parametrize(
    "value", ["", "x", "with blanks in the middle of it", "eyJhbGciOiJSUzI1NiJ9"]
)
def test_a_static_value_that_is_no_token_stops_the_start(value: str) -> None:
    with pytest.raises(InvalidToken, match="malformed"):
        holding(value, ManualClock())


def test_another_value_counts_when_it_was_found_twice_in_a_row() -> None:
    clock, static_file = ManualClock(), StaticFile()
    source = StaticSource(static_file.read, clock)
    for half in (NEW[:22], NEW[:25], OLD, NEW):  # a slow write in place
        static_file.holds = half
        assert not source.reload_once()
        assert value_of(source) == OLD
    clock.advance(5)
    assert source.reload_once()
    assert (value_of(source), source.replaced_s) == (NEW, clock.wall_s)
    assert not source.reload_once()
    assert source.stats().issued_total == 2


def test_a_jwt_and_a_token_without_an_end_take_each_others_place() -> None:
    clock, static_file = ManualClock(), StaticFile()
    source = StaticSource(static_file.read, clock)
    static_file.holds = jwt(iat=clock.wall_s, exp=clock.wall_s + 900)
    assert [source.reload_once(), source.reload_once()] == [False, True]
    assert source.longest_ttl_s == 900
    clock.advance(901)
    assert source.best() is None
    static_file.holds = NEW
    assert [source.reload_once(), source.reload_once()] == [False, True]
    assert (value_of(source), source.longest_ttl_s) == (NEW, math.inf)


@pytest.mark.parametrize(
    "wrong",
    [
        SettingsError("/token: No such file or directory"),
        SettingsError("/token is empty"),
        "x7q",
        "eyJhbGciOiJSUzI1NiJ9.eyJ",
        "x" * 20_000,
        jwt(exp=ManualClock().wall_s - 1),
    ],
    ids=["missing", "empty", "malformed", "half", "huge", "dead"],
)
def test_what_cannot_be_used_is_said_once_and_changes_nothing(wrong: str | SettingsError) -> None:
    clock, static_file = ManualClock(), StaticFile()
    source = StaticSource(static_file.read, clock)
    with capture_logs() as lines:
        static_file.holds = wrong
        assert not any(source.reload_once() for _ in range(10))
        assert value_of(source) == OLD
        assert source.stats().last_error
        static_file.holds = NEW
        assert [source.reload_once(), source.reload_once()] == [False, True]
    assert [line["event"] for line in lines] == [
        "static_token_reload_failed",
        "static_token_replaced",
    ]
    assert source.stats().last_error == ""
    shown = f"{lines} {source!r} {source.stats()}"
    assert not [value for value in (OLD, NEW, str(static_file.holds)) if value in shown]
    assert not (isinstance(wrong, str) and wrong in shown)


def test_a_file_that_is_mended_as_it_was_is_said_again_when_it_breaks_again() -> None:
    static_file = StaticFile()
    source = StaticSource(static_file.read, ManualClock())
    with capture_logs() as lines:
        for holds in (SettingsError("gone"), OLD, SettingsError("gone")):
            static_file.holds = holds
            assert not source.reload_once()
    assert len(lines) == 2


def test_a_wall_clock_that_steps_does_not_make_what_was_written_since_look_older() -> None:
    clock, static_file = ManualClock(), StaticFile()
    source = StaticSource(static_file.read, clock)
    assert source.replaced_s == LONG_AGO
    static_file.holds = NEW
    source.reload_once()
    source.reload_once()
    replaced_s = clock.wall_s
    clock.advance(60)
    clock.wall_s += 3600
    assert source.replaced_s == replaced_s
    clock.wall_s -= 7200
    assert source.replaced_s == clock.wall_s - 60


def test_a_file_from_the_future_counts_as_of_now() -> None:
    clock = ManualClock()
    assert StaticSource(StaticFile().read, clock, since_s=NEVER).replaced_s == clock.wall_s
    assert StaticSource(StaticFile().read, clock, since_s=clock.wall_s - 9).replaced_s == (
        clock.wall_s - 9
    )


def test_each_listener_gets_each_token_within_two_looks() -> None:
    async def main() -> None:
        static_file, received = StaticFile(), list[Token]()
        source = StaticSource(static_file.read, VirtualClock(asyncio.get_running_loop()))

        async def tell(token: Token) -> None:
            received.append(token)

        source.on_replaced(tell)
        async with asyncio.TaskGroup() as group:
            keeper = group.create_task(source.watch_file())
            await asyncio.sleep(3600)
            static_file.holds = NEW
            await asyncio.sleep(2 * RELOAD_S + 0.1)
            assert received == [source.best()]
            await asyncio.sleep(3600)
            keeper.cancel()
        assert len(received) == 1

    run_virtual(main())
