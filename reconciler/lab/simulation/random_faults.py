"""Rules for an API server that fails some requests, with the failures of real API servers."""

import asyncio
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import msgspec

from reconciler import errors
from reconciler.kube.status_errors import from_response
from reconciler.lab.apiserver.fault_injection import Admission, FaultRule, InjectedFault
from reconciler.lab.fault_catalogue import Fault
from reconciler.lab.simulation.invariants import NAMESPACE
from reconciler.lab.simulation.moves import Move as Drawn
from reconciler.lab.simulation.obstacles import RETRY_AFTER_S, is_throttling
from reconciler.naming import Names

TRICKLE_S = 4.0
"""Longest time of an answer: below every time limit."""

LINE_S = 0.5
"""Longest time between two lines of a watch that trickles."""

WEBHOOK_S = 10.0
"""Source: the default of a webhook's `timeoutSeconds`; as long as our limit for a write."""

DENIED = 'admission webhook "guard.example.com" denied the request: no'
UNREACHABLE = 'Internal error occurred: failed calling webhook "guard.example.com": no answer'

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


def trickling(random: Random) -> FaultRule:
    """Return a rule that lets each answer arrive up to `TRICKLE_S` after the server has acted."""
    return lambda verb, plural: InjectedFault(answer_s=random.uniform(0.0, TRICKLE_S))


def repeating(random: Random) -> FaultRule:
    """Return a rule for a proxy that repeats half of the writes.

    The client gets a 409 for a write that was executed, if that has a resourceVersion.
    """

    def rule(verb: str, plural: str) -> InjectedFault | None:
        if verb not in ("create", "patch") or random.random() < 0.5:
            return None
        return InjectedFault(repeated_s=random.uniform(0.01, 1.0))

    return rule


def webhook(random: Random, size: float) -> FaultRule:
    """Return a rule for a validating webhook on Secrets, pods, or both.

    It denies, with the code that it names or with 400 without one; it cannot be called; it gives no
    answer within the API server's limit; or half of its answers are one of these. Source of the
    texts and codes: apiserver `webhook/errors/statuserror.go`, `webhook/validating/dispatcher.go`.
    """
    resources = (("secrets",), ("pods",), ("secrets", "pods"))[int(size * 3)]
    mode = int(size * 1e6) % 5

    def rule(verb: str, plural: str) -> InjectedFault | None:
        if verb not in ("create", "patch") or plural not in resources:
            return None
        if mode == 4 and random.random() < 0.5:
            return None
        match random.randrange(4) if mode == 4 else mode:
            case 0:
                return InjectedFault(_answer(403, "Forbidden", DENIED, verb, plural))
            case 1:
                return InjectedFault(_answer(400, "BadRequest", DENIED, verb, plural))
            case 2:
                return InjectedFault(_answer(500, "InternalError", UNREACHABLE, verb, plural))
            case _:
                late = _answer(500, "InternalError", UNREACHABLE, verb, plural)
                return InjectedFault(late, delay_s=WEBHOOK_S)

    return rule


def _answer(code: int, reason: str, message: str, verb: str, plural: str) -> errors.KubeError:
    status = {"code": code, "reason": reason, "message": message}
    return from_response(code, msgspec.json.encode(status), what=f"{verb} {plural}")


def local_fault(drawn: Drawn, namespace: str) -> FaultRule:
    """Return a rule for the writes in one namespace: slow, without an answer, or refused."""

    def rule(verb: str, plural: str) -> InjectedFault | None:
        if NAMESPACE.get() != namespace or verb not in ("create", "patch") or plural == "leases":
            return None
        match drawn.kind:
            case Fault.NAMESPACE_SLOW:
                return InjectedFault(delay_s=SLOW_S)
            case Fault.NAMESPACE_HANG:
                return InjectedFault(delay_s=HANGS_S)
            case _:
                return InjectedFault(_refusal(throttles=is_throttling(drawn)))

    return rule


def _refusal(*, throttles: bool) -> errors.KubeError:
    """Return a new error: a shared object would collect the traceback of every raise."""
    if throttles:
        what = "patch: throttled"
        return errors.TooManyRequests(what, status=429, retry_after_s=RETRY_AFTER_S)
    return errors.ServerError("patch: unavailable", status=503)


def rewriting(size: float, names: Names) -> Admission:
    """Return a mutating webhook on Secrets and pods.

    It adds a label and an annotation of its own; for two thirds of the sizes it also removes one of
    our annotations, or all of them.
    """
    ours = names.annotations()
    one = ours[int(size * 1e6) % len(ours)]
    removed = ((), (one,), ours)[int(size * 3)]

    def admission(plural: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if plural not in ("secrets", "pods"):
            return body
        metadata = body.get("metadata") or {}
        annotations = {
            **{
                name: text
                for name, text in (metadata.get("annotations") or {}).items()
                if name not in removed
            },
            **dict.fromkeys(removed),
            "example.com/checked": "yes",
        }
        labels = {**(metadata.get("labels") or {}), "example.com/cost-centre": "7"}
        return {**body, "metadata": {**metadata, "annotations": annotations, "labels": labels}}

    return admission


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
