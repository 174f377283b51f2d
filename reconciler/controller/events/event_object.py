"""An Event object in the API: made, repeated, and made again when it has expired."""

from collections.abc import Mapping

from reconciler.clock import EpochTime, format_utc
from reconciler.controller.events.rules import EventMessage
from reconciler.errors import NotFound
from reconciler.kube.api import Body, Kube, Permit
from reconciler.kube.decoding import resource

MAX_TIMEOUT_S = 5.0
"""Longest wait for one response."""

MAX_NAME_PREFIX = 220
"""Characters of the object's name, so that the Event's name fits into 253."""

EVENTS = resource("events", group="", version="v1", partial=True, decode=lambda _: None)
"""core/v1, the form that `kubectl describe` reads; the responses are not decoded."""


def event_body(
    involved: Mapping[str, str],
    event: EventMessage,
    *,
    count: int,
    first_s: EpochTime,
    last_s: EpochTime,
    component: str,
    instance: str,
) -> Body:
    """Return an Event without its name.

    Args:
        involved: The reference to the object that it is about.
        component: `source.component` and `reportingComponent`.
        instance: `reportingInstance`: the replica, or its term.
    """
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "involvedObject": involved,
        "type": event.type,
        "reason": event.reason,
        "message": event.message,
        "count": count,
        "firstTimestamp": format_utc(first_s),
        "lastTimestamp": format_utc(last_s),
        "source": {"component": component},
        "reportingComponent": component,
        "reportingInstance": instance,
    }


async def write_event(
    kube: Kube,
    body: Body,
    name: str,
    *,
    now_s: EpochTime,
    limit_s: float,
    permit: Permit | None = None,
) -> str:
    """Repeat the Event of this name, or create one; return the name that it has.

    Args:
        name: "" if it was not created yet. It may be gone: an Event lives for an hour.
        now_s: Wall time, epoch seconds.
    """
    namespace = body["involvedObject"]["namespace"]
    if name:
        repeated = {field: body[field] for field in ("count", "lastTimestamp", "message")}
        try:
            await kube.patch(EVENTS, namespace, name, repeated, limit_s=limit_s, permit=permit)
        except NotFound:
            pass
        else:
            return name
    # Source: client-go record/event.go: the object's name and a timestamp in nanoseconds.
    prefix = body["involvedObject"]["name"][:MAX_NAME_PREFIX].rstrip("-.")
    name = f"{prefix}.{round(float(now_s) * 1e9):x}"
    named = {**body, "metadata": {"name": name, "namespace": namespace}}
    await kube.create(EVENTS, namespace, named, limit_s=limit_s, permit=permit)
    return name
