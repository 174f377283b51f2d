"""What the parts of one controller share: its runtime, its stores and its configuration."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Literal

import msgspec
import structlog
from cachetools import TTLCache

from reconciler.clock import Clock, Instant
from reconciler.controller.decide.sharding import of_shard
from reconciler.informer.store import IndexedStore, Store
from reconciler.kube.api import ApiResource, ObjectMeta
from reconciler.kube.decoding import metadata_resource
from reconciler.naming import ALL_SESSIONS, Names, Shard
from reconciler.telemetry.trace import Tracer

log = structlog.get_logger()

REPEAT_S = 600.0
"""The same fact is logged again after this time, for a reader of the log's last lines."""

MAX_FACTS = 4096


class LogDedup:
    """Bounded memory of the facts that were logged: a fault of hours must not fill the log."""

    def __init__(self, clock: Clock) -> None:
        self._logged: TTLCache[tuple[str, ...], bool, Instant] = TTLCache(
            MAX_FACTS, REPEAT_S, timer=clock.monotonic
        )

    def should_log(self, *fact: str) -> bool:
        """Return True if this fact was not logged within `REPEAT_S`, and record it."""
        if fact in self._logged:
            return False
        self._logged[fact] = True
        return True

    def reset(self, *fact: str) -> bool:
        """Forget a fact that has ended; True if it was logged."""
        return self._logged.pop(fact, False)


class ControllerConfig(msgspec.Struct, frozen=True):
    """The settings that the controller depends on; see `Settings` for units and reasons."""

    names: Names
    namespaces: Sequence[str] = ()
    finds_namespaces: bool = False
    """Watch the namespaces of the platform's projects, too. Without this, an empty `namespaces`
    means one watch of all namespaces."""
    max_namespaces: int = 500
    mode: Literal["standard", "mpp"] = "standard"
    workers: int = 64
    propagation_s: float = 90.0
    startup: Literal["all", "stale"] = "all"
    resync_s: float = 360.0
    touch: bool = True
    request_limit_s: float = 10.0
    platform_parallel: int = 8
    drain_s: float = 20.0
    lease_s: float = 0.0
    shard: Shard = ALL_SESSIONS
    """The part of all sessions that this replica works on."""
    on_synced: Callable[[], None] = lambda: None
    """Called once, when the first lists are in the stores."""


class Runtime(msgspec.Struct, frozen=True):
    """What every part gets: the configuration, time, randomness, the log's memory, and traces."""

    config: ControllerConfig
    clock: Clock
    random: Random
    log_dedup: LogDedup
    tracer: Tracer


class Stores(msgspec.Struct, frozen=True):
    """The two resources that are watched: the store of each, and how its objects are decoded."""

    pods: IndexedStore
    secrets: Store
    pod_resource: ApiResource[ObjectMeta]
    secret_resource: ApiResource[ObjectMeta]


def make_stores(runtime: Runtime) -> Stores:
    """Return empty stores of this shard's objects.

    That a Secret comes with its data, which is not requested, is logged: the data is not decoded,
    but its bytes went through this process.
    """
    names, shard = runtime.config.names, runtime.config.shard

    def warn_of_value() -> None:
        if runtime.log_dedup.should_log("secret_value_received"):
            log.warning(
                "secret_value_received",
                reason="the API server, or what is before it, sent data instead of metadata",
            )

    return Stores(
        pods=IndexedStore("pods"),
        secrets=Store("secrets"),
        pod_resource=of_shard(metadata_resource("pods", names), shard),
        secret_resource=of_shard(metadata_resource("secrets", names, on_data=warn_of_value), shard),
    )
