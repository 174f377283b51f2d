"""An event loop on virtual time: when all tasks are idle, time jumps to the next timer."""

import asyncio
import contextvars
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from reconciler.clock import EpochTime, Instant

T = TypeVar("T")

SHORTEST_S = 1e-6
"""Shortest timer, as on a real machine: without it, a wait for the end of an interval on a clock of
another rate would loop without end."""

MAX_TURNS = 300_000
"""Most turns of the loop in a second of virtual time: a hundred times those of a start of 500
sessions. A loop without a wait ends the run with an error instead of never."""

EPOCH_S = EpochTime(1_767_225_600)
"""Wall time at loop time 0: 2026-01-01T00:00:00Z, so that two runs write the same instants."""


class _JumpingSelector(selectors.DefaultSelector):
    """Checks for ready sockets without waiting; if none is ready, advances the loop's time."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self._second = 0.0
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._turns += 1
        if self.now_s >= self._second + 1.0:
            self._second, self._turns = self.now_s, 0
        if self._turns > MAX_TURNS:
            self._turns = 0  # its tasks can still be cancelled
            raise RuntimeError(f"{MAX_TURNS} turns of the loop within a second of virtual time")
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if timeout is None:
            raise RuntimeError("nothing is ready and no timer is set: every task is blocked")
        self.now_s += timeout
        return ready


class FreezableScope:
    """Tasks that stop together, like those of a process that is stopped or stalled.

    A callback or timer that is due while the scope is frozen runs after the thaw, in order, unless
    it was cancelled before.
    """

    def __init__(self) -> None:
        self._freezes = 0
        self._deferred: list[_ScopedCallback] = []

    @property
    def frozen(self) -> bool:
        return self._freezes > 0

    def create_task(self, main: Coroutine[Any, Any, T], *, name: str = "") -> asyncio.Task[T]:
        """Start a task in this scope; the tasks that it starts are in it, too."""
        context = contextvars.copy_context()
        context.run(_SCOPE.set, self)
        return asyncio.create_task(main, name=name or None, context=context)

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Schedule a callback in this scope, as from another thread."""
        context = contextvars.copy_context()
        context.run(_SCOPE.set, self)
        asyncio.get_running_loop().call_soon(callback, context=context)

    def freeze(self) -> None:
        """Stop the scope until as many calls of `thaw`."""
        self._freezes += 1

    def thaw(self) -> None:
        """End one `freeze`; the scope runs when the last one has ended."""
        if self._freezes <= 1:
            self.release()
        else:
            self._freezes -= 1

    def release(self) -> None:
        """End every `freeze`."""
        self._freezes = 0
        held, self._deferred = self._deferred, []
        for guarded in held:
            guarded.reschedule()

    def defer(self, guarded: "_ScopedCallback") -> None:
        self._deferred.append(guarded)


_SCOPE: contextvars.ContextVar[FreezableScope | None] = contextvars.ContextVar(
    "domain", default=None
)


class _ScopedCallback:
    """A callback of a scope: runs at once, or after the thaw if the scope is frozen."""

    __slots__ = ("_args", "_callback", "_loop", "_scope", "context", "handle")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        scope: FreezableScope,
        context: contextvars.Context,
        callback: Any,
        args: Any,
    ) -> None:
        self.context = context
        self._loop = loop
        self._scope = scope
        self._callback = callback
        self._args = args
        self.handle: asyncio.Handle | None = None

    def __call__(self) -> None:
        if self._scope.frozen:
            self._scope.defer(self)
        elif self.handle is None or not self.handle.cancelled():
            self._callback(*self._args)

    def reschedule(self) -> None:
        self._loop.call_soon(self, context=self.context)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs any asyncio program without real I/O; a day of timers takes milliseconds."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s

    def call_soon(  # type: ignore[override]  # typeshed ties the arguments to the callback
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        guarded = self._scoped(callback, args, context)
        if guarded is None:
            return super().call_soon(callback, *args, context=context)
        guarded.handle = super().call_soon(guarded, context=guarded.context)
        return guarded.handle

    def call_at(  # type: ignore[override]  # as above
        self,
        when: float,
        callback: Any,
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        when = max(when, self.time() + SHORTEST_S)
        guarded = self._scoped(callback, args, context)
        if guarded is None:
            return super().call_at(when, callback, *args, context=context)
        handle = guarded.handle = super().call_at(when, guarded, context=guarded.context)
        return handle

    def _scoped(
        self, callback: Any, args: Any, context: contextvars.Context | None
    ) -> _ScopedCallback | None:
        found = contextvars.copy_context() if context is None else context
        domain = found.get(_SCOPE, None)
        return None if domain is None else _ScopedCallback(self, domain, found, callback, args)


class VirtualClock:
    """The loop's time as a `Clock`; the wall clock may step, the monotonic clock never.

    Args:
        rate: Seconds of the monotonic clock in one second.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, rate: float = 1.0) -> None:
        self._loop = loop
        self._rate = rate
        self.step_s = 0.0

    def monotonic(self) -> Instant:
        return Instant(self._loop.time() * self._rate)

    def wall(self) -> EpochTime:
        return EPOCH_S + self._loop.time() + self.step_s


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a new virtual loop and return its result."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
