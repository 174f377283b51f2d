"""What the Leases say of all shards: which has no leader, and which has another n."""

import pytest

from reconciler.naming import Shard
from reconciler.preflight.shards import ShardLease, of_leases

COUNT = 3


def held(*shards: Shard | None) -> list[ShardLease]:
    """Return the Leases `l-0`, `l-1`, ... with a leader of these shards."""
    return [ShardLease(f"l-{index}", index, shard) for index, shard in enumerate(shards)]


def all_of(count: int) -> list[Shard]:
    return [Shard(index, count) for index in range(count)]


def warnings(leases: list[ShardLease], **more: tuple[int, ...]) -> list[str]:
    found = of_leases(COUNT, leases, **more)
    assert {each.area for each in found} <= {"shards"}
    assert all(each.remedy for each in found if each.level != "OK")
    return [each.message for each in found if each.level == "WARN"]


@pytest.mark.parametrize("leases", [held(*all_of(COUNT)), held(None, None, None)])
def test_a_leader_for_each_shard_is_well_also_of_a_version_that_writes_no_shard(
    leases: list[ShardLease],
) -> None:
    [finding] = of_leases(COUNT, leases)
    assert (finding.level, finding.message) == ("OK", "each of the 3 shards has a leader")


def test_a_shard_without_a_leader_is_named() -> None:
    leases = held(*all_of(COUNT))
    assert warnings(leases[1:]) == ["no leader has shard 0/3: its sessions get no token"]
    assert warnings(leases[1:2]) == ["no leader has shard 0/3, 2/3: its sessions get no token"]


def test_before_the_first_start_no_shard_is_named() -> None:
    assert warnings([]) == ["no shard has a leader: none was started yet, or none can lead"]


def test_the_same_index_of_another_n_is_named() -> None:
    found = warnings(held(Shard(0, 4), Shard(1, 3), Shard(2, 3)))
    assert found == [
        "the leader of Lease l-0 has shard 0/4, and n is 3 here: a session can have two leaders,"
        " or none"
    ]


@pytest.mark.parametrize(
    ("shard", "words"), [(Shard(3, 4), "has shard 3/4"), (None, "is of more shards")]
)
def test_an_index_that_this_n_does_not_have_is_named(shard: Shard | None, words: str) -> None:
    [message] = warnings(held(*all_of(COUNT), shard))
    assert message.startswith(f"the leader of Lease l-3 {words}, and n is 3 here")


def test_a_deployment_without_shards_has_the_sessions_of_the_missing_ones_too() -> None:
    single = ShardLease("l", None)
    expected = ["the leader of Lease l has all sessions, those of the shards too"]
    assert warnings([*held(*all_of(COUNT)), single]) == expected
    assert warnings([single]) == expected


def test_what_could_not_be_read_is_neither_missing_nor_well() -> None:
    assert of_leases(COUNT, held(Shard(0, 3), Shard(1, 3)), unknown=(2,)) == []
    assert of_leases(COUNT, [], unknown=(0, 1, 2)) == []
