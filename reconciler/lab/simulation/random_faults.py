"""Rules for an API server that fails some requests, with the failures of real API servers."""

import asyncio
from collections.abc import Callable
from random import Random

from reconciler import errors
from reconciler.lab.apiserver.fault_injection import InjectedFault
from reconciler.lab.fault_catalogue import Fault
from reconciler.lab.simulation.invariants import NAMESPACE
from reconciler.lab.simulation.moves import Move as Drawn

FaultRule = Callable[[str, str], InjectedFault | None]

SLOW_S = 9.0
"""Delay of a write that still succeeds, a second before its time limit."""

HANGS_S = 60.0
"""Delay beyond every time limit."""


def random_fault(random: Random, share: float) -> Callable[[str, str], InjectedFault | None]:
    """Return a rule that fails a share of the requests at random."""

    def rule(verb: str, plural: str) -> InjectedFault | None:
        if random.random() >= share:
            return None
        applied = random.random() < 0.5
        match random.randrange(5):
            case 0:
                if verb == "patch":
                    error = errors.Conflict("patch: conflict", status=409, reason="Conflict")
                    return InjectedFault(error)
                return InjectedFault(delay_s=random.uniform(0.1, 2.0))
            case 1:
                return InjectedFault(
                    errors.ServerError("internal error", status=500), applied=applied
                )
            case 2:
                error_503 = errors.ServerError("unavailable", status=503, retry_after_s=1.0)
                return InjectedFault(error_503)
            case 3:
                lost = errors.TransportError("the connection was reset")
                return InjectedFault(lost, delay_s=random.uniform(0.0, 1.0), applied=applied)
            case _:
                return InjectedFault(
                    delay_s=random.uniform(5.0, 20.0)
                )  # beyond some limits: a timeout

    return rule


def slow(random: Random) -> FaultRule:
    """Return a rule that delays each answer by up to a second."""
    return lambda verb, plural: InjectedFault(delay_s=random.random())


def throttling(random: Random) -> FaultRule:
    """Return a rule that answers half of the requests with 429."""

    def rule(verb: str, plural: str) -> InjectedFault | None:
        if random.random() < 0.5:
            return None
        what = f"{verb} {plural}: throttled"
        return InjectedFault(errors.TooManyRequests(what, status=429, retry_after_s=1.0))

    return rule


def local_fault(drawn: Drawn, namespace: str) -> FaultRule:
    """Return a rule for the writes in one namespace: slow, without an answer, or refused."""
    kind = int(drawn.size * 1e6) % 2  # the first digits chose the namespace

    def rule(verb: str, plural: str) -> InjectedFault | None:
        if NAMESPACE.get() != namespace or verb not in ("create", "patch") or plural == "leases":
            return None
        match drawn.kind:
            case Fault.NAMESPACE_SLOW:
                return InjectedFault(delay_s=SLOW_S)
            case Fault.NAMESPACE_HANG:
                return InjectedFault(delay_s=HANGS_S)
            case _:
                return InjectedFault(_refusal(kind))

    return rule


def _refusal(kind: int) -> errors.KubeError:
    """Return a new error: a shared object would collect the traceback of every raise."""
    match kind:
        case 0:
            return errors.TooManyRequests("patch: throttled", status=429, retry_after_s=60.0)
        case _:
            return errors.ServerError("patch: unavailable", status=503)


def starting(up_at: float) -> FaultRule:
    """Return a rule for an API server that starts: no connection, then a 403 for every request.

    Args:
        up_at: When it begins to answer, by the loop's clock. Its authorizer knows no binding until
            its informers are synced, so that the elector's requests get a 403, too.
    """

    def rule(verb: str, plural: str) -> InjectedFault | None:
        what = f"{verb} {plural}"
        if asyncio.get_running_loop().time() < up_at:
            return InjectedFault(errors.TransportError(f"{what}: connection refused"))
        return InjectedFault(errors.Forbidden(f"{what}: forbidden", status=403, reason="Forbidden"))

    return rule
