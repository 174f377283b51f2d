"""Whether each shard has a leader, and whether all leaders have the same number of shards.

What the Leases show: a leader writes its shard `i/n` to its Lease. A standby replica with another n
writes nothing; the metric `shards` shows it.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reconciler.clock import EpochTime
from reconciler.errors import Forbidden, ProtocolError, RemoteError
from reconciler.kube.api import Kube, ListOptions
from reconciler.leadership.lease import lease_resource, read
from reconciler.naming import ALL_SESSIONS, Shard
from reconciler.preflight.findings import Finding
from reconciler.settings import MAX_SHARDS, Settings, parse_shard

_CHANGE = 'see "Changing n" in docs/sizing.md'


@dataclass(frozen=True, slots=True)
class ShardLease:
    """A Lease that has a leader.

    Args:
        index: Of its shard; None = the Lease of a Deployment without shards.
        shard: Of its leader; None = an older version wrote it, which does not say so.
    """

    name: str
    index: int | None
    shard: Shard | None = None


def of_leases(
    count: int, held: Sequence[ShardLease], *, unknown: Sequence[int] = ()
) -> list[Finding]:
    """Return the findings on the Leases that have a leader (pure).

    Args:
        count: n of this replica's own setting.
        unknown: Indexes of the shards whose Lease could not be read.

    >>> [finding] = of_leases(2, [ShardLease("l-0", 0), ShardLease("l-1", 1)])
    >>> finding.level, finding.message
    ('OK', 'each of the 2 shards has a leader')
    """
    if not held and not unknown:
        message = "no shard has a leader: none was started yet, or none can lead"
        return [_warning(message, "start the shards; the log of each says what it waits for")]
    found = []
    leading = {lease.index for lease in held}
    seen = leading.union(unknown)
    missing = [str(Shard(index, count)) for index in range(count) if index not in seen]
    if missing and None not in leading:
        message = f"no leader has shard {', '.join(missing)}: its sessions get no token"
        found.append(_warning(message, f"create its Deployment, or lower n; {_CHANGE}"))
    found += [
        _warning(
            f"the leader of Lease {lease.name} {_has(lease.shard)}, and n is {count} here: a"
            " session can have two leaders, or none",
            f"give all Deployments the same n; {_CHANGE}",
        )
        for lease in held
        if lease.index is not None and _differs(lease, count)
    ]
    if None in leading:
        [name] = [lease.name for lease in held if lease.index is None]
        message = f"the leader of Lease {name} has all sessions, those of the shards too"
        remedy = f"delete the Deployment without shards when each shard has a leader; {_CHANGE}"
        found.append(_warning(message, remedy))
    if not found and not unknown:
        found.append(Finding("shards", "OK", f"each of the {count} shards has a leader"))
    return found


def _differs(lease: ShardLease, count: int) -> bool:
    if lease.shard is not None:
        return lease.shard.count != count
    return lease.index is not None and lease.index >= count


def _has(shard: Shard | None) -> str:
    return "is of more shards" if shard is None else f"has shard {shard}"


def _warning(message: str, remedy: str) -> Finding:
    return Finding("shards", "WARN", message, remedy)


async def check_shards(
    kube: Kube, settings: Settings, now_s: Callable[[], EpochTime]
) -> list[Finding]:
    """Read the Leases of all shards, and return the findings.

    Leases of indexes from n on, and the one of a Deployment without shards, are read as far as the
    account may: a Role names the Leases of its own n.

    Args:
        now_s: The API server's time.
    """
    count = settings.shard.count
    shards = [ALL_SESSIONS] + [Shard(index, MAX_SHARDS) for index in range(MAX_SHARDS)]
    answers = await asyncio.gather(*(_read(kube, settings, shard, now_s) for shard in shards))
    held: list[ShardLease] = []
    unknown: dict[int, str] = {}
    for shard, answer in zip(shards, answers, strict=True):
        is_needed = shard is not ALL_SESSIONS and shard.index < count
        if isinstance(answer, ShardLease):
            held.append(answer)
        elif answer is not None and (is_needed or not isinstance(answer, Forbidden)):
            unknown[shard.index] = f"cannot list Lease {settings.lease_of(shard)}: {answer}"
    remedy = "name the Leases of all shards in the Role, as manifests/components/shards does"
    return [
        *(_warning(message, remedy) for message in unknown.values()),
        *of_leases(count, held, unknown=tuple(unknown)),
    ]


async def _read(
    kube: Kube, settings: Settings, shard: Shard, now_s: Callable[[], EpochTime]
) -> ShardLease | RemoteError | ProtocolError | None:
    """Return a Lease that has a leader, the error, or None: it has none."""
    name = settings.lease_of(shard)
    scope = ListOptions(settings.namespace, fields=f"metadata.name={name}")
    try:
        page = await kube.list(lease_resource(), scope, limit_s=settings.request_limit_s)
    except (RemoteError, ProtocolError) as error:
        return error
    for lease in page.items:
        if read(lease).is_held(now_s()):
            index = None if shard.count == 1 else shard.index
            written = (lease.metadata.annotations or {}).get(settings.names().shard, "")
            return ShardLease(name, index, _shard(written))
    return None


def _shard(written: str) -> Shard | None:
    try:
        return parse_shard(written)
    except ValueError:
        return None
