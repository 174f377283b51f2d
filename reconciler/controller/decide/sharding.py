"""Which shard a session belongs to, and what a shard sees of the API server's lists (pure).

The hash is an agreement between the replicas of all shards and of all versions: a change of it is a
change of n (`docs/sizing.md`).
"""

import hashlib
from dataclasses import replace

import msgspec

from reconciler.kube.api import ApiResource, Event, ObjectMeta, Page
from reconciler.naming import SessionKey, Shard, object_id

_BITS_64 = 2**64 - 1


def shard_of(key: SessionKey, count: int) -> int:
    """Return the index of the shard, of `count`, that a session belongs to.

    Two sessions of one namespace that share the name of a Secret are in one shard, which sees that
    the name is taken.

    >>> [shard_of(SessionKey("team-a", f"2FbX{number}"), 3) for number in range(6)]
    [0, 0, 1, 0, 0, 0]
    """
    if count == 1:
        return 0
    name = f"{key.namespace}/{object_id(key.session_id)}"
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return _jump_hash(int.from_bytes(digest, "big"), count)


def _jump_hash(key: int, buckets: int) -> int:
    """Return a bucket; with one bucket more, a key stays in its bucket or moves to the new one.

    Thus a change of n moves sessions between a shard that exists with both numbers and a shard that
    exists with one of them, and never between two that exist with both.

    Source: Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm", 2014.
    """
    bucket, following = -1, 0
    while following < buckets:
        bucket = following
        key = (key * 2862933555777941757 + 1) & _BITS_64
        following = int((bucket + 1) * (2**31 / ((key >> 33) + 1)))
    return bucket


def owns(shard: Shard, key: SessionKey) -> bool:
    """Return whether a session belongs to this shard."""
    return shard_of(key, shard.count) == shard.index


def of_shard(resource: ApiResource[ObjectMeta], shard: Shard) -> ApiResource[ObjectMeta]:
    """Return the resource as if the API server selected the shard's objects.

    A list has the shard's objects alone. A watch event of another shard's object is a deletion, as
    the server sends it for an object that leaves a selector: it removes an object that was moved to
    another session by its label, and changes nothing otherwise.

    Cost: 2 us for an object of another shard, besides its decoding.
    """
    if shard.count == 1:
        return resource

    def decode_page(data: bytes) -> Page[ObjectMeta]:
        page = resource.decode_page(data)
        items = [meta for meta in page.items if owns(shard, meta.key)]
        return msgspec.structs.replace(page, items=items)

    def decode_event(line: bytes) -> Event[ObjectMeta]:
        event = resource.decode_event(line)
        if event.object is None or owns(shard, event.object.key):
            return event
        return Event("DELETED", event.version, event.object)

    return replace(resource, decode_page=decode_page, decode_event=decode_event)
