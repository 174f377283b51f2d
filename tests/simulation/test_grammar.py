"""Sentences of overlapping moves: drawn, judged, covered and shrunk."""

import itertools
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from reconciler.lab.cli.simulate import play_seed, run_simulations
from reconciler.lab.fault_catalogue import Fault
from reconciler.lab.simulation import grammar, obstacles
from reconciler.lab.simulation.conditions import Conditions
from reconciler.lab.simulation.grammar import (
    KINDS,
    LONG_S,
    MODE_PAIRS,
    PAIRS,
    draw_sentence,
    draw_world,
    limited,
    modes_of,
    pairs_of,
)
from reconciler.lab.simulation.invariants import NO_EXPIRED_TOKEN
from reconciler.lab.simulation.moves import Move
from reconciler.lab.simulation.obstacles import (
    DENIED_S,
    PAUSE_S,
    RETRY_AFTER_S,
    TAKEOVER_S,
    Obstacles,
)
from reconciler.lab.simulation.run import play
from reconciler.lab.simulation.scenario import PodLifetime, Scenario, SessionPlan
from reconciler.lab.simulation.shrinking import Shrinker

SEEDS = int(os.environ.get("RECONCILER_SEEDS", 8))
"""Sentences that are the same each day; `make worlds` plays more."""

A_DAY = 4
"""Sentences of each date: a fixed slice alone finds nothing new."""

TODAY = 1_000_000 + A_DAY * datetime.now(UTC).date().toordinal()

SHORT = 60.0


def short_seed(above: int = 0) -> int:
    """Return the first seed with tokens of 60 s from an issuer."""
    return next(
        seed for seed in range(above, above + 200) if draw_sentence(seed).conditions.ttl_s == SHORT
    )


@pytest.mark.parametrize("seed", [*range(SEEDS), *range(TODAY, TODAY + A_DAY)])
def test_every_invariant_holds_whatever_moves_coincide(seed: int) -> None:
    result = play_seed(seed)
    assert result.passed, result.text


@pytest.mark.parametrize("kind", KINDS)
def test_each_move_alone_violates_nothing(kind: Fault) -> None:
    move = Move(kind, 15.0, 4.0, 0.5)
    outcome = play(limited(draw_sentence(short_seed()), moves=[move], sessions=3))
    assert outcome.violations == (), "\n".join(outcome.last)
    assert outcome.moves == (move,)


def test_the_same_sentence_is_the_same_run() -> None:
    seed = short_seed()
    assert draw_sentence(seed) == draw_sentence(seed)
    first, second = play(draw_sentence(seed)), play(draw_sentence(seed))
    assert first == second
    assert first.digest != play(draw_sentence(seed + 1)).digest


def test_a_sentence_is_repeated_from_its_text() -> None:
    moves = draw_sentence(7).faults
    assert tuple(Move.parse(str(move)) for move in moves) == moves
    for text in ("kill-leader", "no-such-move@1.0+1.0*0.5", "kill-leader@1.0+1.0"):
        with pytest.raises(ValueError, match="a move is"):
            Move.parse(text)


def test_the_seeds_draw_nearly_every_pair_of_moves() -> None:
    seen, with_mode = set[grammar.Pair](), set[tuple[str, Fault]]()
    for seed in range(2000):
        sentence = draw_sentence(seed)
        seen |= pairs_of(sentence.faults, sentence.conditions.ttl_s)
        kinds = {move.kind for move in sentence.faults}
        with_mode |= set(itertools.product(modes_of(sentence), kinds))
    assert seen <= set(PAIRS)
    assert len(seen) >= 0.9 * len(PAIRS)
    assert with_mode == MODE_PAIRS


STORED = {
    1: Conditions(namespaces="found"),
    40: Conditions(ttl_s=60.0, propagation_s=6.0),
}
"""The modes of the seeds in tests/mutants/, whose stored sentences need them."""


@pytest.mark.parametrize("seed", STORED)
def test_a_seed_that_is_stored_with_a_sentence_keeps_its_world(seed: int) -> None:
    world = draw_world(seed)
    assert replace(world.conditions, revived=False) == STORED[seed]
    drawn = world.length_s, len(world.projects), len(world.sessions), world.replicas
    assert drawn == {1: (1322.986, 1, 7, 2), 40: (142.153, 4, 13, 3)}[seed]


def test_another_move_changes_the_world_of_no_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = [draw_sentence(seed) for seed in range(20)]
    monkeypatch.setattr(grammar, "KINDS", KINDS[:-1])
    monkeypatch.setattr(grammar, "_ORDERS", {False: PAIRS[:9], True: PAIRS[-9:]})
    again = [draw_sentence(seed) for seed in range(20)]
    assert [limited(s, moves=(), sessions=500) for s in again] == [
        limited(s, moves=(), sessions=500) for s in drawn
    ]
    assert again != drawn


def test_a_move_that_begins_after_the_recovery_makes_no_pair() -> None:
    first, near, far = (Move(Fault.KILL_LEADER, at_s, 10.0, 0.0) for at_s in (0.0, 60.0, 200.0))
    assert pairs_of([first, near], 900.0) == {(Fault.KILL_LEADER, Fault.KILL_LEADER)}
    assert pairs_of([first, far], 900.0) == set()


def judged(moves: Sequence[Move], *, replicas: int = 1) -> Obstacles:
    return Obstacles(moves, replicas=replicas, namespace_of=lambda move: "team-a")


def test_a_refresh_is_excused_only_if_the_moves_left_no_time_for_it() -> None:
    outage = Move(Fault.ISSUER_OUTAGE, 100.0, 50.0, 0.0)
    late = Move(Fault.API_OUTAGE, 160.0, 40.0, 0.0)
    assert judged([outage]).excused_until_s(120.0, 140.0, "team-b") == 150.0 + PAUSE_S
    assert judged([outage]).excused_until_s(120.0, 190.0, "team-b") == 0.0
    assert judged([outage, late]).excused_until_s(120.0, 190.0, "team-b") == 200.0 + PAUSE_S


def test_a_namespace_excuses_no_other() -> None:
    slow = judged([Move(Fault.NAMESPACE_ERRORS, 100.0, 50.0, 0.0)])
    assert slow.excused_until_s(120.0, 140.0, "team-a") == 150.0 + PAUSE_S
    assert slow.excused_until_s(120.0, 140.0, "team-b") == 0.0


def test_a_standby_ends_the_excuse_of_a_lost_leader() -> None:
    lost = Move(Fault.FREEZE_LEADER, 100.0, 200.0, 0.0)
    ends_s = 100.0 + TAKEOVER_S + PAUSE_S
    assert judged([lost]).excused_until_s(100.0, 110.0, "") == 300.0 + PAUSE_S
    assert judged([lost], replicas=2).excused_until_s(100.0, 110.0, "") == ends_s
    assert judged([lost, lost], replicas=2).excused_until_s(100.0, 110.0, "") == 300.0 + PAUSE_S


def test_a_session_waits_as_long_as_the_last_refusal_before_the_end_lets_it() -> None:
    throttled, failing = (Move(Fault.NAMESPACE_ERRORS, 100.0, 50.0, size) for size in (0.5, 1e-6))
    asked_s = 150.0 + RETRY_AFTER_S + PAUSE_S
    assert judged([throttled]).hides_until_s(120.0, "team-a", confirmed=True) == asked_s
    assert judged([throttled]).hides_until_s(120.0, "team-b", confirmed=True) == 0.0
    assert judged([throttled]).excused_until_s(120.0, 140.0, "team-a") == 150.0 + PAUSE_S
    ends_s = 150.0 + 2 * PAUSE_S
    assert judged([failing]).hides_until_s(120.0, "team-a", confirmed=True) == ends_s
    denied = judged([Move(Fault.WEBHOOK_DENIES, 100.0, 50.0, 0.5)])
    assert denied.excused_until_s(120.0, 140.0, "team-a") == 150.0 + DENIED_S
    assert denied.excused_until_s(120.0, 160.0, "team-a") == 150.0 + PAUSE_S
    assert denied.excused_until_s(120.0, 170.0, "team-a") == 0.0


def test_an_outage_of_the_platform_excuses_only_what_was_never_confirmed() -> None:
    found = judged([Move(Fault.PLATFORM_OUTAGE, 100.0, 50.0, 0.0)])
    assert found.hides_until_s(120.0, "", confirmed=True) == 0.0
    assert found.hides_until_s(120.0, "", confirmed=False) == 150.0 + 2 * PAUSE_S


OUTAGE = Move(Fault.ISSUER_OUTAGE, 40.0, 60.0, 0.5)
"""Longer than a token of 60 s lives."""


@pytest.fixture
def unexcused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Excuse no outage of the issuer, so that it violates an invariant."""
    stopping = obstacles.WRITE_STOPPING - {Fault.ISSUER_OUTAGE}
    monkeypatch.setattr(obstacles, "WRITE_STOPPING", stopping)


@pytest.mark.usefixtures("unexcused")
def test_a_failing_sentence_shrinks_to_the_moves_that_cause_it() -> None:
    drawn = draw_sentence(short_seed())
    others = (
        Move(Fault.WATCH_RESET, 5.0, 3.0, 0.5),
        Move(Fault.CLOCK_STEP, 12.0, 4.0, 0.5),
        Move(Fault.POD_CHURN, 30.0, 10.0, 0.5),
    )
    sentence = limited(drawn, moves=(*others, OUTAGE), sessions=len(drawn.sessions))
    shrinker = Shrinker(sentence, play(sentence))
    shrinker.shrink()
    assert shrinker.sentence.faults == (OUTAGE,)
    assert len(shrinker.sentence.sessions) < len(sentence.sessions)
    assert shrinker.outcome.violations[0].invariant == NO_EXPIRED_TOKEN


@pytest.mark.usefixtures("unexcused")
def test_a_failure_prints_a_command_that_repeats_it(capsys: pytest.CaptureFixture[str]) -> None:
    seed, text = short_seed(), str(OUTAGE)
    assert run_simulations(seeds=1, first=seed, moves=text) == 1
    printed = capsys.readouterr().out
    assert f"seed {seed}: FAILED" in printed
    assert f"violated: {NO_EXPIRED_TOKEN} at " in printed
    assert f"minimal sentence: {text}\n  timeline:\n    40.000 begin issuer-outage" in printed
    assert f"repeat with: reconciler simulate --from {seed} --seeds 1 --sessions " in printed
    assert f"--moves '{text}'" in printed
    assert printed.endswith(f"1 seeds, 1 failed: {seed}\n")


def test_a_run_continues_from_its_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, seed = tmp_path / "results", short_seed()
    for seeds in (1, 2):
        assert run_simulations(seeds=seeds, first=seed, sessions=2, results=results) == 0
    printed = capsys.readouterr().out
    assert printed.count(f"seed {seed}: ok") == 1
    assert printed.endswith("2 seeds, 0 failed\n")
    assert len(results.read_bytes().splitlines()) == 2


class Found(NamedTuple):
    """What a sentence found: modes, minimal sentence, sessions, replicas and their clocks' rate.

    A seed draws other modes when those of the grammar change.
    """

    conditions: Conditions
    text: str
    sessions: int = 1
    rate: float = 1.0
    replicas: int = 1
    seed: int = 0
    deleted: tuple[tuple[str, float], ...] = ()
    """The project of each session that the platform deletes, and when its pod ends, seconds. A
    tenant starts another pod of it a minute later."""
    restarted_s: tuple[float, ...] = ()
    """When each further session starts its second pod, on the Secret of a first one of 20 s."""

    def scenario(self) -> Scenario:
        """Return its world, which ends one life of a token after the last move."""
        conditions, moves = self.conditions, tuple(map(Move.parse, self.text.split()))
        length_s = moves[-1].end_s + min(conditions.ttl_s, LONG_S)
        pods = (PodLifetime(0.0, 2 * length_s, 0.5 * conditions.ttl_s, finishes=False),)
        sessions = [SessionPlan(f"Sess{n}", "Team-a", pods) for n in range(self.sessions)]
        for number, (project, end_s) in enumerate(self.deleted):
            pods = (PodLifetime(0.0, end_s, 0.5 * conditions.ttl_s, finishes=True),)
            name, revived_s = f"Gone{number}", end_s + 70.0
            sessions.append(SessionPlan(name, project, pods, deleted=True, revived_s=revived_s))
        for number, restarted_s in enumerate(self.restarted_s):
            ended = PodLifetime(0.0, 20.0, 0.5 * conditions.ttl_s, finishes=True)
            again = PodLifetime(restarted_s, 2 * length_s, None, finishes=False)
            sessions.append(SessionPlan(f"Back{number}", "Team-a", (ended, again)))
        projects = tuple(sorted({session.project for session in sessions}))
        skew_s, rates = conditions.skew_s, (self.rate,) * self.replicas
        return Scenario(
            self.seed, 1.0, length_s, projects, tuple(sessions), moves, skew_s, rates, conditions
        )


FOUND = {
    "an expiry that is edited after its writer has lost the Lease and taken it again": Found(
        Conditions(ttl_s=300.0, touch=False, propagation_s=30.0),
        "api-restart@94.68+9.912*0.139327 forge-annotations@142.376+13.861*0.21735",
        seed=2,
    ),
    "shorter tokens at a step ahead of the issuer's clock": Found(
        Conditions(sends_date=False),
        "issuer-short-ttl@438.638+147.536*0.989641 issuer-clock-step@438.638+0.554*0.590055",
    ),
    "a rollout while tokens are shorter": Found(
        Conditions(ttl_s=300.0, propagation_s=30.0),
        "issuer-short-ttl@38.982+97.418*0.050158 rollout@82.014+6.061*0.751593",
    ),
    "a restore beyond a compaction": Found(
        Conditions(ttl_s=300.0, propagation_s=30.0),
        "compaction@108.0+3.0*0.9 restore-store@113.0+0.5*0.9",
    ),
    "refreshes before a step of the issuer's clock is known": Found(
        Conditions(sends_date=False), "issuer-clock-step@438.638+0.554*0.590055", sessions=6
    ),
    "a step of the issuer's clock while no pod is touched": Found(
        Conditions(touch=False),
        "partition-leader@411.188+75.575*0.754852 issuer-clock-step@434.16+0.5*0.117791",
    ),
    "expired tokens before a replica starts": Found(Conditions(), "restart-all@300.0+1500.0*0.2"),
    "a clock that drifts until a cache has three tokens": Found(
        Conditions(ttl_s=86_400.0, cached_s=2178.0), "watch-reset@6000.0+0.5*0.5", rate=1.0006
    ),
    "a replica that starts without the issuer, with a wrong clock": Found(
        Conditions(skew_s=3600.0),
        "rollout@174.081+36.411*0.549693 issuer-outage@174.081+177.079*0.757634",
    ),
    "a new leader whose token is older than the one that a Secret hides": Found(
        Conditions(ttl_s=300.0, propagation_s=30.0),
        "strip-annotations@35.0+200.0*0.9 api-restart@55.0+30.0*0.5 rollout@85.0+10.0*0.5"
        " rollout@125.0+10.0*0.5 overwrite-loop@75.0+100.0*0.7",
        sessions=3,
        replicas=3,
        seed=6,
    ),
    "a step that the tokens of a cache hide": Found(
        Conditions(ttl_s=3600.0, sends_date=False, cached_s=922.3429731467095),
        "issuer-clock-step@1665.636+2.634*0.121652",
    ),
    "a step back that a cache hides until it has three other tokens": Found(
        Conditions(ttl_s=3600.0, sends_date=False, cached_s=1013.8128102864847),
        "issuer-clock-step@1593.051+0.5*0.982641",
    ),
    "a step back by lives, which a cache hides until after the end": Found(
        Conditions(ttl_s=3600.0, sends_date=False, cached_s=1067.0),
        "issuer-clock-step@1674.957+0.5*0.746447",
        replicas=3,
    ),
    "a replica whose first token is cached, while expires_in is false": Found(
        Conditions(sends_date=False, touch=False, cached_s=200.43415699599305),
        "issuer-wrong-expires-in@381.826+325.466*0.892756 rollout@412.48+9.77*0.625035",
        replicas=2,
        seed=1,
    ),
    "a first token that the Date header contradicts, and no other clock": Found(
        Conditions(ttl_s=86_400.0, cached_s=10895.342590881548, skew_s=-301.0),
        "issuer-wrong-expires-in@1450.558+388.427*0.842174 upgrade@1715.356+123.629*0.798763",
    ),
    "a step after a proof, which a cache hides and a Date header does not prove": Found(
        Conditions(ttl_s=3600.0, cached_s=1000.0), "issuer-clock-step@3200.0+0.5*0.12"
    ),
    "three cached tokens with the same false expires_in": Found(
        Conditions(sends_date=False, cached_s=150.0, skew_s=62.0),
        "issuer-wrong-expires-in@380.0+600.0*0.6 rollout@412.48+9.77*0.625035",
        replicas=2,
        seed=1,
    ),
    "a step that an issuer hides which refuses": Found(
        Conditions(sends_date=False),
        "issuer-clock-step@414.13+0.5*0.549438 issuer-refusal@434.13+160.0*0.054886",
        sessions=11,
    ),
    "a restore of tokens that a step has ended": Found(
        Conditions(ttl_s=300.0, sends_date=False, namespaces="named", propagation_s=30.0),
        "issuer-clock-step@40.602+0.5*0.472991 restore-store@163.807+0.5*0.902267",
        sessions=4,
    ),
    "rights that work again for watches without events": Found(
        Conditions(static=True, namespaces="named", ttl_s=60.2), "api-restart@427.222+52.58*0.5"
    ),
    "a writer that answers each write of short tokens": Found(
        Conditions(ttl_s=60.0, propagation_s=6.0), "strip-annotations@15.0+60.0*0.9", sessions=3
    ),
    "writes a second before the tokens of a lost leader expire": Found(
        Conditions(ttl_s=20.0, propagation_s=2.0),
        "kill-leader@2.011+1.773*0.466948 watch-close@14.0+0.5*0.5",
        sessions=8,
    ),
    "the last session of a project is deleted while another project fails": Found(
        Conditions(),
        "platform-partial-outage@200.0+1500.0*0.002956",
        deleted=(("Team-b", 300.0), ("Team-c", 3000.0)),
    ),
    "a schedule by tokens that seem to be half used": Found(
        Conditions(ttl_s=3600.0, sends_date=False, skew_s=3600.0),
        "issuer-wrong-expires-in@100.0+2400.0*0.594337 restart-all@150.0+1.0*0.5",
    ),
    "a leader that touches for the last write of the one before": Found(
        Conditions(sends_date=False, date_off_s=62.0, cached_s=133.708),
        "issuer-wrong-expires-in@595.595+494.563*0.890875 upgrade@601.206+415.824*0.03354"
        " watch-close@795.839+28.094*0.042882",
        sessions=6,
        replicas=3,
        seed=1,
    ),
    "a static token that is replaced while its only leader has lost the Lease": Found(
        Conditions(static=True, namespaces="named"),
        "api-outage@300.0+40.0*0.5 rotate-static-token@320.0+0.5*0.5 api-errors@330.0+60.0*0.95"
        " watch-close@600.0+0.5*0.5",
        sessions=30,
        seed=1,
    ),
    "an answer that precedes a time without a proof": Found(
        Conditions(ttl_s=3600.0, sends_date=False, skew_s=62.0),
        "issuer-cache@597.895+263.36*0.973645 issuer-wrong-expires-in@636.593+1603.991*0.504285",
        replicas=2,
    ),
    "a pause that outlasts a token": Found(
        Conditions(),
        "pause-commands@100.0+1500.0*0.5",
        sessions=6,
    ),
    "a restore brings a pause back": Found(
        Conditions(),
        "pause-commands@100.0+200.0*0.5 restart-all@150.0+2.0*0.1 restore-secrets@200.0+100.0*0.9",
        sessions=6,
    ),
    "a write a moment before a token that a step ends sooner": Found(
        Conditions(ttl_s=300.0, date_off_s=3600.0, propagation_s=30.0),
        "issuer-clock-step@222.705+0.5*0.457854",
        sessions=40,
        seed=5,
    ),
    "a step back by as much as earlier tokens are old": Found(
        Conditions(date_off_s=301.0), "issuer-clock-step@473.791+0.5*0.829733", replicas=2
    ),
    "a step back while one of two nodes is behind": Found(
        Conditions(date_off_s=301.0),
        "issuer-wrong-expires-in@160.426+486.366*0.677896 issuer-node-behind@171.825+418.557*0.5166"
        " issuer-clock-step@473.791+0.5*0.829733",
        replicas=2,
    ),
    "a write after a step of the issuer's clock, which a proxy repeats": Found(
        Conditions(),
        "issuer-clock-step@362.361+0.5*0.528382 api-repeat@396.948+290.719*0.323483",
        sessions=8,
        seed=1,
    ),
    "a write a moment before a token ends, by a step ahead that follows it": Found(
        Conditions(), "issuer-clock-step@700.0+0.5*0.140918", sessions=60, seed=13
    ),
    "a write before a token ends, where no pod is touched": Found(
        Conditions(touch=False), "issuer-outage@100.0+850.0*0.5", sessions=3, seed=1
    ),
    "expired tokens of sessions that are paused and resumed": Found(
        Conditions(),
        "pause-commands@1015.0+97.0*0.5 issuer-outage@100.0+1200.0*0.5",
        sessions=5,
        seed=1,
    ),
    "a client that edits the expiry after each write": Found(
        Conditions(), "forge-annotations@200.0+100.0*0.388889", sessions=4, replicas=2
    ),
    "a client that makes each token look new": Found(
        Conditions(), "forge-annotations@200.0+880.0*0.166667", sessions=4, replicas=2
    ),
    "an expiry that is edited while the leader changes": Found(
        Conditions(),
        "forge-annotations@200.0+20.0*0.277778 rollout@205.0+5.0*0.5",
        sessions=4,
        replicas=2,
    ),
    "tokens of a node that is behind, three in a row": Found(
        Conditions(date_off_s=62.0, cached_s=152.796),
        "issuer-nodes-differ@250.427+417.498*0.049805",
        sessions=6,
    ),
    "a node that is ahead of the one that gave the cached token": Found(
        Conditions(sends_date=False, cached_s=264.655),
        "issuer-nodes-differ@249.521+230.217*0.748143",
        sessions=2,
        replicas=2,
    ),
    "a project fails until the platform has no session": Found(
        Conditions(),
        "platform-partial-outage@299.0+550.0*0.002956 watch-close@1500.0+0.5*0.5",
        sessions=0,
        deleted=(("Team-a", 345.0), ("Team-b", 700.0)),
    ),
    "a client that strips the annotations of writes that a proxy repeats": Found(
        Conditions(ttl_s=300.0, propagation_s=30.0),
        "api-repeat@300.0+200.0*0.5 strip-annotations@325.8+40.3*0.73",
        sessions=3,
        replicas=2,
        seed=19,
    ),
    "a kubelet sees the Secret of a restarted session after its first touch": Found(
        Conditions(cached_s=189.0),
        "watch-close@1500.0+0.5*0.5",
        restarted_s=(1145.0,) * 12,
        seed=4,
    ),
}


@pytest.mark.parametrize("found", FOUND.values(), ids=FOUND)
def test_what_failed_once_stays_repaired(found: Found) -> None:
    outcome = play(found.scenario())
    assert outcome.violations == (), "\n".join(outcome.last)
