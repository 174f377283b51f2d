"""Faults between one client and the core, for simulations; the HTTP server has its own."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from reconciler.errors import Forbidden, KubeError, TransportError

DOWN_S = 3.5
"""Source: measured: from the end of a kube-apiserver to the first answer of the next one."""

UNAUTHORIZED_S = 0.2
"""Source: measured on an empty cluster; minutes where there are many bindings
(kubernetes#121635)."""


@dataclass(frozen=True, slots=True)
class InjectedFault:
    """The fault of one request.

    Args:
        error: Raised instead of an answer.
        delay_s: Seconds before the server gets the request.
        applied: Whether the server executes the request although the answer is lost.
        answer_s: Seconds from the execution until the client has the whole answer.
        repeated_s: A proxy loses the first answer, and sends the request again after so many
            seconds; the client gets the second answer. None: no proxy does.
    """

    error: KubeError | None = None
    delay_s: float = 0.0
    applied: bool = False
    answer_s: float = 0.0
    repeated_s: float | None = None


NO_FAULT = InjectedFault()

Admission = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""Plural and the body of a create or a patch -> the body that a mutating webhook makes of it."""

FaultRule = Callable[[str, str], InjectedFault | None]
"""Verb (`list`, `watch`, `get`, `create`, `patch`, `ready`) and plural -> the request's fault."""


class OpenWatch(Protocol):
    """A watch that faults can affect."""

    def wake(self) -> None:
        """Check the state again: a fault began or ended."""
        ...

    def drop(self) -> None:
        """Reset it."""
        ...

    def close(self) -> None:
        """End it cleanly."""
        ...


class FaultInjection:
    """Faults of one client's connection to the server; none at first.

    `rule` chooses the fault of each request that `fail_next` does not match, and `webhook` that of
    a request without another fault. `admission` changes the body of each write. `lateness_s`
    returns for how many seconds a watch holds its next line back. `repeats` returns whether a watch
    sends its next line twice; while it is set, a watch also begins with the event of its own
    version, as in kubernetes#24004.

    Args:
        common: Faults that this client shares with others.
    """

    def __init__(self, common: "FaultInjection | None" = None) -> None:
        self.rule: FaultRule | None = None
        self.webhook: FaultRule | None = None
        self.admission: Admission | None = None
        self.lateness_s: Callable[[], float] | None = None
        self.repeats: Callable[[], bool] | None = None
        self._common = common
        self._planned: deque[tuple[str, str, InjectedFault]] = deque()
        self._partitioned = False
        self._silent = False
        self._is_down = False
        self._is_unauthorized = False
        self._reachable = asyncio.Event()
        self._reachable.set()
        self._watches: dict[OpenWatch, None] = {}

    def fail_next(
        self, fault: InjectedFault, *, verb: str = "", resource: str = "", count: int = 1
    ) -> None:
        """Apply `fault` to the next `count` matching requests; "" matches all."""
        self._planned.extend([(verb, resource, fault)] * count)

    def partition(self, *, cut: bool) -> None:
        """Begin or end a partition: requests wait until their time limit, watches are silent."""
        self._partitioned = cut
        if cut:
            self._reachable.clear()
        else:
            self._reachable.set()
        self._wake()

    def silence_watches(self, *, silent: bool) -> None:
        """Begin or end silence: watches stay open and deliver nothing; events wait for its end."""
        self._silent = silent
        self._wake()

    def drop_watches(self) -> int:
        """Reset every open watch; return their number."""
        for watch in self._watches:
            watch.drop()
        return len(self._watches)

    def close_watches(self) -> int:
        """End every open watch cleanly, as the server does; return their number."""
        for watch in self._watches:
            watch.close()
        return len(self._watches)

    async def restart(
        self, *, down_s: float = DOWN_S, unauthorized_s: float = UNAUTHORIZED_S
    ) -> None:
        """Simulate a restart of the server and return when it is complete.

        Args:
            down_s: Seconds in which connections are refused.
            unauthorized_s: Seconds after that in which every request gets a 403, /readyz too: the
                authorizer knows no binding yet.
        """
        self.drop_watches()
        self._is_down = True
        await asyncio.sleep(down_s)
        self._is_down, self._is_unauthorized = False, True
        await asyncio.sleep(unauthorized_s)
        self._is_unauthorized = False

    @property
    def mute(self) -> bool:
        """Whether open watches deliver nothing."""
        own = self._silent or self._partitioned
        return own or (self._common is not None and self._common.mute)

    async def reach(self) -> None:
        """Wait until no partition separates client and server."""
        await self._reachable.wait()
        while self._common is not None and self._common.partitioned:
            await self._common.reach()
            await self._reachable.wait()

    @property
    def partitioned(self) -> bool:
        return self._partitioned

    def fault_of(self, verb: str, resource: str) -> InjectedFault:
        """Return the fault of this request."""
        if self._is_down:
            return InjectedFault(TransportError(f"{verb} {resource}: connection refused"))
        if self._is_unauthorized:
            message = f"{verb} {resource}: the API server answered 403 Forbidden"
            return InjectedFault(Forbidden(message, status=403, reason="Forbidden"))
        for planned in self._planned:
            if planned[0] in ("", verb) and planned[1] in ("", resource):
                self._planned.remove(planned)
                return planned[2]
        own = self.rule and self.rule(verb, resource)
        if own:
            return own
        if self.webhook is not None and (refusal := self.webhook(verb, resource)) is not None:
            return refusal
        return NO_FAULT if self._common is None else self._common.fault_of(verb, resource)

    def admitted(self, resource: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the body of a write as the webhooks leave it."""
        if self._common is not None:
            body = self._common.admitted(resource, body)
        return body if self.admission is None else self.admission(resource, body)

    def line_lateness_s(self) -> float:
        """Return for how many seconds the next line of a watch is held back."""
        own_s = 0.0 if self.lateness_s is None else self.lateness_s()
        return own_s if self._common is None else own_s + self._common.line_lateness_s()

    @property
    def is_repeating(self) -> bool:
        return self.repeats is not None or (self._common is not None and self._common.is_repeating)

    def repeats_line(self) -> bool:
        """Return whether a watch sends its next line twice."""
        if self.repeats is not None and self.repeats():
            return True
        return self._common is not None and self._common.repeats_line()

    def opened(self, watch: OpenWatch) -> None:
        self._watches[watch] = None
        if self._common is not None:
            self._common.opened(watch)

    def closed(self, watch: OpenWatch) -> None:
        self._watches.pop(watch, None)
        if self._common is not None:
            self._common.closed(watch)

    def _wake(self) -> None:
        for watch in self._watches:
            watch.wake()
