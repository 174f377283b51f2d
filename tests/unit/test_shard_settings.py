"""RECONCILER_SHARD: what it means for the Lease and the platform, and what is refused."""

import pytest

from reconciler.errors import SettingsError
from reconciler.naming import Shard
from reconciler.settings import MAX_SHARDS, read_settings


@pytest.mark.parametrize(
    ("value", "shard", "lease"),
    [
        ("", Shard(0, 1), "token-reconciler"),
        ("0/1", Shard(0, 1), "token-reconciler"),
        ("0/3", Shard(0, 3), "token-reconciler-0"),
        (" 2/3 ", Shard(2, 3), "token-reconciler-2"),
        (f"15/{MAX_SHARDS}", Shard(15, MAX_SHARDS), "token-reconciler-15"),
    ],
)
def test_each_shard_has_a_lease(
    value: str, shard: Shard, lease: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECONCILER_SHARD", value)
    settings = read_settings()
    assert (settings.shard, settings.lease) == (shard, lease)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("3/3", "must count the shards from 0: the last one is 2/3"),
        ("7/3", "must count the shards from 0: the last one is 2/3"),
        ("0/0", "must be i/n with n from 1 to 16"),
        ("0/17", "must be i/n with n from 1 to 16"),
        ("1", "must be i/n: 0/3 is the first of three shards"),
        ("a/b", "must be i/n: 0/3 is the first of three shards"),
        ("-1/3", "must be i/n: 0/3 is the first of three shards"),
        ("1/3,1/4", "must be i/n: 0/3 is the first of three shards"),
    ],
)
def test_a_wrong_shard_stops_the_start_with_one_line(
    value: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECONCILER_SHARD", value)
    with pytest.raises(SettingsError) as caught:
        read_settings()
    assert str(caught.value) == f"RECONCILER_SHARD {reason} (is {value!r})"


@pytest.mark.parametrize("count", range(1, MAX_SHARDS + 1))
def test_all_shards_together_leave_the_platform_its_connections(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECONCILER_SHARD", f"0/{count}")
    share = read_settings().platform_share
    assert share >= 1
    assert count * share <= max(8, count)
    assert 2 * count * share <= 32  # connections of the platform's 50 to its database
