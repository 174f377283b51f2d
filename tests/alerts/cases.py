"""What each alert is asked: series in promtool's notation, and when it fires and when not.

Samples are 30 s apart, as are evaluations: `1x4` is five of them, two minutes and a half.
"""

from dataclasses import dataclass

TARGET = 'job="token-reconciler", namespace="ambient-code"'
STEP_S = 30
LENGTH = "x120"
"""An hour of samples."""
ENDLESS = " ".join(["Inf"] * 60)
"""promtool repeats no infinity."""

Series = dict[str, str]


@dataclass(frozen=True)
class Case:
    """Series that make one alert fire, or none.

    Args:
        quiet: An instant at which nothing fires yet, as promtool has it.
        firing: An instant at which the alert fires, and no other; "" where none ever does.
        over: An instant after the fault at which nothing fires any more; "" where it goes on.
    """

    name: str
    alert: str
    series: Series
    quiet: str = ""
    firing: str = ""
    over: str = ""


def on(instance: str, name: str, more: str = "") -> str:
    """Return a series of one replica."""
    prefix = "" if name == "up" else "token_reconciler_"
    return f'{prefix}{name}{{{TARGET}, instance="{instance}"{", " if more else ""}{more}}}'


def healthy(**of_one: str) -> Series:
    """Return a healthy replica's series, some of them otherwise."""
    values = {
        "build_info": f"1{LENGTH}",
        "leader": f"1{LENGTH}",
        "token_life_seconds": f"900{LENGTH}",
        "propagation_allowance_seconds": f"90{LENGTH}",
        "remaining_life_min_seconds": f"400{LENGTH}",
        "fleet_survival_seconds": f"740{LENGTH}",
        "estimated_exposure_seconds_total": f"0{LENGTH}",
    }
    return {on("a", name): value for name, value in (values | of_one).items()}


KUBE = 'endpoint="kube"'
PLATFORM = 'endpoint="platform"'
PODS = 'resource="pods"'
LATE = 'priority="routine", le='
PATCHED = 'write="patch", result="success"'
FORBIDDEN = 'write="patch", result="Forbidden"'
CONFLICT = 'write="patch", result="Conflict"'
REPEATED = 'pattern="repeated"'
CHANCE = 'pattern="isolated"'
ISSUER = 'endpoint="issuer"'
EAST = 'cluster="east"'
WEST = 'cluster="west"'

CASES = (
    Case(
        "a healthy fleet",
        "",
        healthy()
        | {
            on("a", "queue_longest_overdue_seconds"): f"0{LENGTH}",
            on("a", "watch_synced", PODS): f"1{LENGTH}",
            on("a", "watch_silence_seconds", PODS): "0+30x2 0+30x2 0+30x2 0+30x2",
            on("a", "endpoint_down", KUBE): f"0{LENGTH}",
            on("a", "sessions_failing"): f"0{LENGTH}",
            on("a", "reconcile_panics_total"): f"0{LENGTH}",
            on("a", "watch_handler_panics_total", PODS): f"0{LENGTH}",
            on("a", "issuer_clock_skew_seconds"): f"0.4{LENGTH}",
            on("a", "issuer_clock_error_seconds"): f"0.5{LENGTH}",
            on("a", "up"): f"1{LENGTH}",
        },
    ),
    Case(
        "pods hold dead tokens from the third minute to the fifth",
        "TokenReconcilerExposureGrowing",
        healthy(estimated_exposure_seconds_total="0x6 0+60x4 240x60"),
        quiet="3m",
        firing="4m",
        over="12m",
    ),
    Case(
        "an old exposure stays counted",
        "TokenReconcilerExposureGrowing",
        healthy(estimated_exposure_seconds_total=f"500{LENGTH}"),
    ),
    Case(
        "a token is left to die",
        "TokenReconcilerTokensExpiring",
        healthy(remaining_life_min_seconds="200-30x10 400x60"),
        quiet="2m30s",
        firing="4m",
        over="6m",
    ),
    Case(
        "a session restarts on its dead Secret",
        "TokenReconcilerTokensExpiring",
        healthy(remaining_life_min_seconds="400x3 -300 -300 400x60"),
    ),
    Case(
        "one replica has not yet seen what the other wrote",
        "TokenReconcilerTokensExpiring",
        healthy() | {on("b", "remaining_life_min_seconds"): f"40{LENGTH}"},
    ),
    Case(
        "the issuer gives nothing any more",
        "TokenReconcilerFleetSurvivalLow",
        healthy(fleet_survival_seconds="740x2 740-30x20 740x60"),
        quiet="7m",
        firing="10m",
        over="13m",
    ),
    Case(
        "a replica that is restarted in the outage knows no life of a token",
        "TokenReconcilerFleetSurvivalLow",
        healthy(token_life_seconds="900x2 _x60", fleet_survival_seconds="740x2 300x60"),
        quiet="1m",
        firing="8m",
    ),
    Case(
        "the issuer's tokens live for a third from now on",
        "TokenReconcilerFleetSurvivalLow",
        healthy(
            token_life_seconds="900x4 300x60",
            remaining_life_min_seconds="400x4 120x60",
            fleet_survival_seconds="740x4 190x60",
        )
        # The other replica asks for its next token three samples later.
        | {on("b", "token_life_seconds"): "900x7 300x60"},
    ),
    Case(
        "tokens of a minute need less",
        "TokenReconcilerFleetSurvivalLow",
        healthy(
            token_life_seconds=f"60{LENGTH}",
            propagation_allowance_seconds=f"4{LENGTH}",
            remaining_life_min_seconds=f"24{LENGTH}",
            fleet_survival_seconds=f"48{LENGTH}",
        ),
    ),
    Case(
        "tokens without an end",
        "TokenReconcilerFleetSurvivalLow",
        healthy(
            token_life_seconds=ENDLESS,
            remaining_life_min_seconds=ENDLESS,
            fleet_survival_seconds=ENDLESS,
        ),
    ),
    Case(
        "no replica leads for five minutes",
        "TokenReconcilerNoLeader",
        healthy(leader="1x4 0x10 1x60") | {on("b", "leader"): f"0{LENGTH}"},
        quiet="3m",
        firing="4m",
        over="8m",
    ),
    Case(
        "a failover",
        "TokenReconcilerNoLeader",
        healthy(leader=f"1x4 0{LENGTH}") | {on("b", "leader"): "0x5 1x60"},
    ),
    Case(
        "two lead",
        "TokenReconcilerTwoLeaders",
        healthy() | {on("b", "leader"): "0x4 1x10 0x60"},
        quiet="4m",
        firing="5m",
        over="8m",
    ),
    Case(
        "each of two clusters has its leader",
        "TokenReconcilerTwoLeaders",
        {
            on("a", "build_info", EAST): f"1{LENGTH}",
            on("a", "leader", EAST): f"1{LENGTH}",
            on("a", "leader", WEST): f"1{LENGTH}",
        },
    ),
    Case(
        "a failover that was scraped in its middle",
        "TokenReconcilerTwoLeaders",
        healthy(leader=f"1x6 0{LENGTH}") | {on("b", "leader"): "0x5 1x60"},
    ),
    Case(
        "one of three shards does not run",
        "TokenReconcilerShardMissing",
        {on(f"{index}", "leader", f'shard="{index}"'): f"1{LENGTH}" for index in range(2)}
        | {on("2", "leader", 'shard="2"'): "1x4 _x20 1x60"}
        | {on("0", "shards"): f"3{LENGTH}", on("1", "shards"): f"3{LENGTH}"}
        | {on("a", "build_info"): f"1{LENGTH}"},
        quiet="6m",
        firing="11m",
        over="14m",
    ),
    Case(
        "three shards run",
        "TokenReconcilerShardMissing",
        {on(f"{index}", "leader", f'shard="{index}"'): f"1{LENGTH}" for index in range(3)}
        | {on(f"{index}", "shards"): f"3{LENGTH}" for index in range(3)}
        | {on("a", "build_info"): f"1{LENGTH}"},
    ),
    Case(
        "one of two shards has no leader",
        "TokenReconcilerNoLeader",
        healthy()
        | {on("0", "leader", 'shard="0"'): f"1{LENGTH}"}
        | {on("1", "leader", 'shard="1"'): "1x4 0x10 1x60"},
        quiet="3m",
        firing="4m",
        over="8m",
    ),
    Case(
        "the tokens of one shard of two are left to die",
        "TokenReconcilerTokensExpiring",
        healthy()
        | {on("0", "remaining_life_min_seconds", 'shard="0"'): f"400{LENGTH}"}
        | {on("1", "remaining_life_min_seconds", 'shard="1"'): "200-30x10 400x60"},
        quiet="2m30s",
        firing="4m",
        over="6m",
    ),
    Case(
        "a change of n is left half done",
        "TokenReconcilerShardsDiffer",
        {on(f"{index}", "leader", f'shard="{index}"'): f"1{LENGTH}" for index in range(4)}
        | {on("0", "shards"): "3x10 4x100", on("1", "shards"): f"3{LENGTH}"}
        | {on("a", "build_info"): f"1{LENGTH}"},
        quiet="30m",
        firing="40m",
    ),
    Case(
        "a change of n",
        "TokenReconcilerShardsDiffer",
        {on(f"{index}", "leader", f'shard="{index}"'): f"1{LENGTH}" for index in range(4)}
        | {on("0", "shards"): "3x10 4x100", on("1", "shards"): "3x40 4x80"}
        | {on("a", "build_info"): f"1{LENGTH}"},
    ),
    Case(
        "the lead changes each minute",
        "TokenReconcilerLeaderFlapping",
        healthy() | {on("a", "lease_transitions_total"): "7x5 7+0.5x20 17x120"},
        quiet="3m",
        firing="10m",
        over="50m",
    ),
    Case(
        "a rollout",
        "TokenReconcilerLeaderFlapping",
        healthy() | {on("a", "lease_transitions_total"): "7x10 8x3 9x60"},
    ),
    Case(
        "no replica exists",
        "TokenReconcilerAbsent",
        {on("a", "build_info"): "1x2 _x20 1x60"},
        # A series that simply ends is looked at for five minutes more.
        quiet="7m",
        firing="9m",
        over="12m",
    ),
    Case(
        "no replica has existed for more than an hour",
        "TokenReconcilerAbsent",
        {on("a", "build_info"): "1x2 _x200 1x20"},
        quiet="7m",
        firing="90m",
    ),
    Case("one of two is there", "TokenReconcilerAbsent", {on("b", "build_info"): f"1{LENGTH}"}),
    Case(
        "one of two clusters has none",
        "TokenReconcilerAbsent",
        {
            on("a", "build_info", EAST): "1x2 _x20 1x60",
            on("a", "build_info", WEST): f"1{LENGTH}",
        },
        quiet="7m",
        firing="9m",
        over="12m",
    ),
    Case(
        "one of two replicas is replaced by another",
        "TokenReconcilerAbsent",
        {
            on("a", "build_info"): f"1{LENGTH}",
            on("b", "build_info"): "1x2",
            on("c", "build_info"): "_x3 1x60",
        },
    ),
    Case(
        "a replica does not answer",
        "TokenReconcilerReplicaDown",
        healthy() | {on("b", "up"): "1x2 0x20 1x60"},
        quiet="6m",
        firing="8m",
        over="13m",
    ),
    Case("its node reboots", "TokenReconcilerReplicaDown", healthy() | {on("b", "up"): "0x8 1x60"}),
    Case(
        "somebody else's target is down",
        "TokenReconcilerReplicaDown",
        healthy() | {'up{job="another"}': f"0{LENGTH}"},
    ),
    Case(
        "one of two replicas is no target any more",
        "TokenReconcilerReplicaMissing",
        healthy() | {on("b", "leader"): "0x60 _x36 0x30"},
        quiet="44m",
        firing="47m",
        over="49m",
    ),
    Case(
        "one of two replicas does not answer",
        "TokenReconcilerReplicaDown",
        healthy() | {on("b", "leader"): "0x20", on("b", "up"): "1x20 0x90"},
        quiet="15m",
        firing="40m",
    ),
    Case(
        "a rollout adds a replica for minutes",
        "TokenReconcilerReplicaMissing",
        healthy() | {on("b", "leader"): f"0{LENGTH}", on("c", "leader"): "_x2 0x4"},
    ),
    Case(
        "the only replica is replaced",
        "TokenReconcilerReplicaMissing",
        healthy(leader="1x20") | {on("b", "leader"): "_x18 0x12 1x90"},
    ),
    Case(
        "a right to list is missing",
        "TokenReconcilerNotSynced",
        healthy() | {on("a", "watch_synced", PODS): "0x20 1x60"},
        quiet="4m",
        firing="6m",
        over="12m",
    ),
    Case(
        "a first list takes its time",
        "TokenReconcilerNotSynced",
        healthy() | {on("a", "watch_synced", PODS): "0x6 1x60"},
    ),
    Case(
        "a watch hears nothing",
        "TokenReconcilerWatchStalled",
        healthy()
        | {
            on("a", "watch_silence_seconds", PODS): "0+30x14 5x60",
            on("a", "endpoint_down", KUBE): f"0{LENGTH}",
        },
        quiet="3m30s",
        firing="5m",
        over="9m",
    ),
    Case(
        "a watch hears a bookmark a minute",
        "TokenReconcilerWatchStalled",
        healthy() | {on("a", "watch_silence_seconds", PODS): "0 30 60 0 30 60 0 30 60 75 0x60"},
    ),
    Case(
        "the API server is unreachable, and its watches are silent",
        "TokenReconcilerEndpointDown",
        healthy()
        | {
            on("a", "watch_silence_seconds", PODS): f"0+30{LENGTH}",
            on("a", "endpoint_down", KUBE): "0 1x60",
        },
        quiet="2m",
        firing="10m",
    ),
    Case(
        "the issuer restarts",
        "TokenReconcilerEndpointDown",
        healthy() | {on("a", "endpoint_down", ISSUER): "0x5 1x3 0x60"},
    ),
    Case(
        "the issuer stays unreachable",
        "TokenReconcilerEndpointDown",
        healthy() | {on("a", "endpoint_down", ISSUER): "0x5 1x9 0x60"},
        quiet="4m",
        firing="6m",
        over="9m",
    ),
    Case(
        "the issuer refuses us while its client is set up anew",
        "TokenReconcilerEndpointRefused",
        healthy()
        | {
            on("a", "endpoint_down", ISSUER): "0x5 1x3 0x60",
            on("a", "endpoint_refused", ISSUER): "0x5 1x3 0x60",
        },
    ),
    Case(
        "the issuer refuses us: that, and not that it is unreachable",
        "TokenReconcilerEndpointRefused",
        healthy()
        | {
            on("a", "endpoint_down", ISSUER): "0x5 1x9 0x60",
            on("a", "endpoint_refused", ISSUER): "0x5 1x9 0x60",
        },
        quiet="4m",
        firing="6m",
        over="9m",
    ),
    Case(
        "the platform refuses us",
        "TokenReconcilerEndpointRefused",
        healthy()
        | {
            on("a", "endpoint_down", PLATFORM): "0x5 1x60",
            on("a", "endpoint_refused", PLATFORM): "0x5 1x60",
        },
        quiet="4m",
        firing="6m",
    ),
    Case(
        "a run meets a defect",
        "TokenReconcilerCrashes",
        healthy() | {on("a", "reconcile_panics_total"): "0x5 1x60"},
        quiet="2m",
        firing="4m",
        over="25m",
    ),
    Case(
        "the handling of a change meets a defect",
        "TokenReconcilerCrashes",
        healthy() | {on("a", "watch_handler_panics_total", PODS): "0x5 1x60"},
        quiet="2m",
        firing="4m",
        over="25m",
    ),
    Case(
        "a defect of yesterday",
        "TokenReconcilerCrashes",
        healthy() | {on("a", "reconcile_panics_total"): f"3{LENGTH}"},
    ),
    Case(
        "workers are too few",
        "TokenReconcilerOverdue",
        healthy() | {on("a", "queue_longest_overdue_seconds"): "0x2 0+30x10 0x60"},
        quiet="2m",
        firing="4m",
        over="8m",
    ),
    Case(
        "a follower has the name of another cluster's leader",
        "TokenReconcilerOverdue",
        {
            on("a", "build_info", EAST): f"1{LENGTH}",
            on("a", "leader", EAST): f"1{LENGTH}",
            on("b", "leader", WEST): f"1{LENGTH}",
            on("a", "leader", WEST): f"0{LENGTH}",
            on("a", "queue_longest_overdue_seconds", WEST): f"0+30{LENGTH}",
        },
    ),
    Case(
        "a follower holds what is due",
        "TokenReconcilerOverdue",
        healthy()
        | {
            on("b", "leader"): f"0{LENGTH}",
            on("b", "queue_longest_overdue_seconds"): f"0+30{LENGTH}",
        },
    ),
    Case(
        "runs start two to five minutes late",
        "TokenReconcilerLate",
        healthy()
        | {
            on("a", "lateness_seconds_bucket", f'{LATE}"120"'): f"0{LENGTH}",
            on("a", "lateness_seconds_bucket", f'{LATE}"300"'): "0+10x20 200x120",
            on("a", "lateness_seconds_bucket", f'{LATE}"+Inf"'): "0+10x20 200x120",
        },
        quiet="4m",
        firing="8m",
        over="25m",
    ),
    Case(
        "one run in a thousand is late",
        "TokenReconcilerLate",
        healthy()
        | {
            on("a", "lateness_seconds_bucket", f'{LATE}"1"'): f"0+999{LENGTH}",
            on("a", "lateness_seconds_bucket", f'{LATE}"300"'): f"0+1000{LENGTH}",
            on("a", "lateness_seconds_bucket", f'{LATE}"+Inf"'): f"0+1000{LENGTH}",
        },
    ),
    Case(
        "a right to patch is gone",
        "TokenReconcilerWritesFailing",
        healthy()
        | {
            on("a", "write_duration_seconds_count", PATCHED): f"0+90{LENGTH}",
            on("a", "write_duration_seconds_count", FORBIDDEN): "0x4 0+10x20 200x120",
        },
        quiet="5m",
        firing="11m",
        over="28m",
    ),
    Case(
        "others write as well",
        "TokenReconcilerWritesFailing",
        healthy()
        | {
            on("a", "write_duration_seconds_count", PATCHED): f"0+90{LENGTH}",
            on("a", "write_duration_seconds_count", CONFLICT): f"0+30{LENGTH}",
            on("a", "write_duration_seconds_count", FORBIDDEN): f"0+1{LENGTH}",
        },
    ),
    Case(
        "a session fails for longer than a period",
        "TokenReconcilerSessionsFailing",
        healthy() | {on("a", "sessions_failing"): "0x2 1x20 0x60"},
        quiet="7m",
        firing="9m",
        over="13m",
    ),
    Case(
        "a session failed and is well again",
        "TokenReconcilerSessionsFailing",
        healthy() | {on("a", "sessions_failing"): "0x2 4x10 0x60"},
    ),
    Case(
        "a Secret is fought over",
        "TokenReconcilerTwoWriters",
        healthy() | {on("a", "overwrites_total", REPEATED): "0x4 1x3 2x60"},
        quiet="2m",
        firing="4m",
        over="25m",
    ),
    Case(
        "a human overwrote a Secret",
        "TokenReconcilerTwoWriters",
        healthy()
        | {
            on("a", "overwrites_total", REPEATED): f"0{LENGTH}",
            on("a", "overwrites_total", CHANCE): "40x4 42x60",
        },
    ),
    Case(
        "the issuer's clock is a minute behind",
        "TokenReconcilerClockSkew",
        healthy()
        | {
            on("a", "issuer_clock_skew_seconds"): "-60x30 -1x60",
            on("a", "issuer_clock_error_seconds"): f"1{LENGTH}",
        },
        quiet="9m",
        firing="11m",
        over="17m",
    ),
    Case(
        "its time is known badly",
        "TokenReconcilerClockSkew",
        healthy()
        | {
            on("a", "issuer_clock_skew_seconds"): f"40{LENGTH}",
            on("a", "issuer_clock_error_seconds"): f"20{LENGTH}",
        },
    ),
)
