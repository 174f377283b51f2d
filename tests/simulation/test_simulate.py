"""Whole worlds on virtual time: they pass, they repeat, and each checker can fail."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import structlog

from reconciler.clock import EpochTime, format_utc
from reconciler.kube.api import ListOptions
from reconciler.kube.decoding import metadata_resource
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.in_process_client import InProcessKube
from reconciler.lab.apiserver.write_log import Caller
from reconciler.lab.fault_catalogue import Fault
from reconciler.lab.simulation import invariants
from reconciler.lab.simulation.conditions import DRAWN, INPUTS, USUAL, Input
from reconciler.lab.simulation.event_log import EventLog, captured_logs
from reconciler.lab.simulation.invariants import CheckedKube, ExposureChecker, SecretChecker
from reconciler.lab.simulation.run import play, simulate
from reconciler.lab.simulation.scenario import LONGEST_S, NEEDS, draw
from reconciler.lab.simulation.virtual_time import EPOCH_S, VirtualClock, run_virtual
from reconciler.leadership.elector import LeaderElector
from reconciler.naming import Names, SessionKey

NAMES = Names()
KEY = SessionKey("default", "S1")
US = Caller("reconciler", manager=NAMES.field_manager)
OTHER = Caller("platform", manager="ambient-control-plane")
ENDS_S = {"jwt-a": EPOCH_S + 900.0, "jwt-b": EPOCH_S + 1800.0}
MARKS = ("jwt-",)
SECRETS = metadata_resource("secrets", NAMES)
PODS = metadata_resource("pods", NAMES)


SEEDS = int(os.environ.get("RECONCILER_SEEDS", 6))
"""`make worlds` plays more."""


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_invariant_holds_for_an_hour(seed: int) -> None:
    outcome = simulate(seed)
    assert outcome.violations == (), "\n".join(outcome.last)
    assert outcome.writes_total > outcome.sessions


def test_the_same_seed_is_the_same_run() -> None:
    assert simulate(3, hours=0.5) == simulate(3, hours=0.5)
    assert simulate(3, hours=0.5).digest != simulate(4, hours=0.5).digest


@pytest.mark.parametrize("hash_seed", ["1", "4242"])
def test_another_process_with_other_hashes_makes_the_same_run(hash_seed: str) -> None:
    script = (
        "from reconciler.lab.simulation.run import simulate; "
        "print([simulate(seed, hours=0.5).digest for seed in (0, 7)])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == str([simulate(seed, hours=0.5).digest for seed in (0, 7)])


def test_every_kind_of_fault_is_drawn_within_a_few_seeds() -> None:
    drawn = {fault.kind for seed in range(100) for fault in draw(seed).faults}
    possible = {kind for kind in LONGEST_S if NEEDS.get(kind) in {None, *DRAWN}}
    assert drawn == possible


@pytest.mark.parametrize("name", INPUTS)
def test_every_input_is_drawn_where_it_may_be(name: Input) -> None:
    drawn = [draw(seed, inputs=[name]).conditions for seed in range(20)]
    assert any(name in conditions.inputs for conditions in drawn)
    assert any(conditions == USUAL for conditions in drawn)
    kinds = {kind for kind, needed in NEEDS.items() if needed == name}
    faults = {fault.kind for seed in range(20) for fault in draw(seed, inputs=[name]).faults}
    assert kinds == faults & NEEDS.keys()


@pytest.mark.parametrize("seed", [8, 22, 42, 47])
def test_a_restored_store_costs_no_token(seed: int) -> None:
    scenario = draw(seed, inputs=["restored_store"])
    assert Fault.RESTORE_STORE in {fault.kind for fault in scenario.faults}
    outcome = play(scenario)
    assert outcome.violations == (), "\n".join(outcome.last)


def test_without_the_word_of_the_lease_a_restored_store_costs_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(LeaderElector, "_check_history", lambda *args: None)
    outcome = play(draw(42, inputs=["restored_store"]))
    assert {violation.invariant for violation in outcome.violations} == {
        invariants.NO_EXPIRED_TOKEN
    }


def test_a_fault_that_outlasts_the_tokens_is_counted_and_excused() -> None:
    outcome = simulate(1)  # the issuer is unreachable for longer than tokens live
    assert outcome.passed
    assert outcome.excused_s > 1000


def test_the_logs_configuration_comes_back() -> None:
    before = structlog.get_config()
    simulate(0, hours=0.02)
    assert structlog.get_config() == before


# Each checker, fed with a history that violates it


class Bench:
    """A core with the checkers, and writes that no correct controller makes."""

    def __init__(
        self,
        *,
        confirmed: bool = True,
        disbelieves: Callable[[str, str], bool] = lambda agent, token: False,
    ) -> None:
        clock = VirtualClock(asyncio.get_running_loop())
        self.journal = EventLog(clock, MARKS)
        self.core = Core(clock)
        checker = SecretChecker(
            NAMES, self.journal, ENDS_S.get, lambda key, project: confirmed, disbelieves
        )
        self.core.on_commit.append(checker.commit)
        direct = InProcessKube(self.core, clock, caller=US, latency_s=1.0)
        self.kube = CheckedKube(direct, NAMES, self.journal)

    def write(
        self, token: str, *, by: Caller = US, annotations: dict[str, str] | None = None
    ) -> None:
        name = NAMES.secret_name(KEY.session_id)
        true = {NAMES.expires_at: format_utc(ENDS_S[token])}
        body = {
            "metadata": {
                "name": name,
                "labels": {NAMES.session_id: KEY.session_id, NAMES.project_id: "P"},
                "annotations": true if annotations is None else annotations,
            },
            "stringData": {NAMES.secret_key: token},
        }
        if self.core.peek(kinds.SECRETS, f"default/{name}") is None:
            self.core.create(kinds.SECRETS, "default", body, by=by)
        else:
            self.core.patch(kinds.SECRETS, "default", name, body, by=by)

    def broken(self) -> list[str]:
        return [violation.invariant for violation in self.journal.violations]


def judge(case: Callable[[Bench], None], *, confirmed: bool = True) -> list[str]:
    async def main() -> list[str]:
        bench = Bench(confirmed=confirmed)
        case(bench)
        return bench.broken()

    return run_virtual(main())


def test_an_honest_history_violates_nothing() -> None:
    def case(bench: Bench) -> None:
        bench.write("jwt-a", by=OTHER)
        bench.write("jwt-a")
        bench.write("jwt-b")

    assert judge(case) == []


def test_an_expiry_that_moves_back_is_seen() -> None:
    def case(bench: Bench) -> None:
        bench.write("jwt-b")
        bench.write("jwt-a")

    assert judge(case) == [invariants.MONOTONIC_EXPIRY]


def test_an_expiry_may_move_back_over_somebody_elses_token() -> None:
    def case(bench: Bench) -> None:
        bench.write("jwt-b", by=OTHER)
        bench.write("jwt-a")

    assert judge(case) == []


def test_an_expiry_may_move_back_if_the_writer_has_only_got_shorter_lives() -> None:
    async def main() -> list[str]:
        bench = Bench(disbelieves=lambda agent, token: token == "jwt-b")
        bench.write("jwt-b")
        bench.write("jwt-a")
        return bench.broken()

    assert run_virtual(main()) == []


def test_a_first_fill_without_confirmation_is_seen() -> None:
    assert judge(lambda bench: bench.write("jwt-a"), confirmed=False) == [
        invariants.CONFIRMED_FIRST
    ]


def test_a_seal_without_confirmation_is_seen() -> None:
    def case(bench: Bench) -> None:
        bench.write("jwt-a", by=OTHER)
        bench.write("jwt-a", annotations={NAMES.confirmation: "v1.x"})

    assert judge(case, confirmed=False) == [invariants.CONFIRMED_FIRST]


def test_an_annotation_that_tells_another_expiry_is_seen() -> None:
    wrong = {NAMES.expires_at: format_utc(EPOCH_S)}
    assert judge(lambda bench: bench.write("jwt-a", annotations=wrong)) == [invariants.TRUE_EXPIRY]


def test_a_token_of_ours_that_a_restored_store_brings_back_is_ours() -> None:
    def case(bench: Bench) -> None:
        bench.write("jwt-b")
        version = bench.core.version
        bench.write("jwt-a", by=OTHER)
        bench.core.restore(version)
        bench.write("jwt-a")

    assert judge(case) == [invariants.MONOTONIC_EXPIRY]


def test_what_was_sealed_after_the_copy_of_a_restored_store_is_not_sealed() -> None:
    def case(bench: Bench) -> None:
        bench.write("jwt-a", by=OTHER)
        version = bench.core.version
        for _ in range(2):
            bench.write("jwt-a", annotations={NAMES.confirmation: "v1.x"})
            bench.core.restore(version)

    assert judge(case, confirmed=False) == [invariants.CONFIRMED_FIRST] * 2


def test_a_token_in_an_annotation_is_seen() -> None:
    annotations = {NAMES.expires_at: format_utc(ENDS_S["jwt-a"]), "note": "jwt-a"}
    assert judge(lambda bench: bench.write("jwt-a", annotations=annotations)) == [
        invariants.NO_TOKEN_EXPOSED
    ]


def test_a_token_in_an_event_is_seen() -> None:
    def case(bench: Bench) -> None:
        event = {
            "metadata": {"name": "e"},
            "involvedObject": {"namespace": "default"},
            "message": "wrote jwt-a",
        }
        bench.core.create(kinds.EVENTS, "default", event, by=US)

    assert judge(case) == [invariants.NO_TOKEN_EXPOSED]


def test_a_token_in_the_log_and_a_crash_are_seen() -> None:
    def case(bench: Bench) -> None:
        with captured_logs(bench.journal):
            log = structlog.get_logger()
            log.info("refreshed", value="jwt-a")
            log.warning("quiet", session_id="S1")
            log.error("reconcile_crashed")
        assert not any("jwt-a" in line for line in bench.journal.last)

    assert judge(case) == [invariants.NO_TOKEN_EXPOSED, "no_crash"]


def test_a_write_without_preconditions_is_seen() -> None:
    async def main() -> list[str]:
        bench = Bench()
        bench.write("jwt-a")
        name = NAMES.secret_name(KEY.session_id)
        secret = (await bench.kube.list(SECRETS, ListOptions())).items[0]
        for metadata in ({}, {"uid": secret.uid}):
            await bench.kube.patch(SECRETS, "default", name, {"metadata": metadata})
        bench.core.create(kinds.PODS, "default", {"metadata": {"name": "p"}})
        await bench.kube.patch(PODS, "default", "p", {"metadata": {"annotations": {"a": "b"}}})
        await bench.kube.create(SECRETS, "default", {"metadata": {"name": "unowned"}})
        return bench.broken()

    # no uid, then no version; a Secret without either says it twice
    assert run_virtual(main()) == [invariants.PRECONDITIONS] * 5


def test_two_writes_of_one_session_at_once_are_seen() -> None:
    async def main() -> list[str]:
        bench = Bench()
        bench.write("jwt-a")
        secret = (await bench.kube.list(SECRETS, ListOptions())).items[0]
        metadata = {"uid": secret.uid, "resourceVersion": secret.version}
        body = {"metadata": {**metadata, "annotations": {"a": "b"}}}
        patches = [bench.kube.patch(SECRETS, "default", secret.name, body) for _ in range(2)]
        await asyncio.gather(*patches, return_exceptions=True)
        return bench.broken()

    assert run_virtual(main()) == [invariants.ONE_AT_A_TIME]


def test_a_read_of_a_secret_is_seen() -> None:
    async def main() -> list[str]:
        bench = Bench()
        bench.write("jwt-a")
        await bench.kube.get(SECRETS, "default", NAMES.secret_name(KEY.session_id))
        return bench.broken()

    assert run_virtual(main()) == [invariants.NO_READS]


def test_expired_token_seconds_are_counted_where_they_belong() -> None:
    async def main() -> tuple[list[str], ExposureChecker]:
        journal = EventLog(VirtualClock(asyncio.get_running_loop()), MARKS)
        exposure = ExposureChecker(journal)
        exposure.started(
            "u",
            "S1",
            EpochTime(110),
            due_s=EpochTime(100),
            now_s=EpochTime(100),
            excused_until_s=EpochTime(115),
        )
        exposure.settle(now_s=EpochTime(110))
        # expired for 8 s, 5 of them excused
        exposure.projected("u", EpochTime(200), due_s=EpochTime(180), now_s=EpochTime(118))
        exposure.stopping("u", now_s=EpochTime(199))
        exposure.stopped("u", now_s=EpochTime(204))
        return [violation.invariant for violation in journal.violations], exposure

    broken, exposure = run_virtual(main())
    assert broken == [invariants.NO_EXPIRED_TOKEN]
    assert (exposure.expired_s, exposure.excused_s, exposure.stopping_s) == (3.0, 5.0, 4.0)


@pytest.mark.parametrize(("until_s", "expired_s"), [(130, 10.0), (150, 0.0)])
def test_a_session_is_excused_while_it_is_paused_and_until_its_repair(
    until_s: float, expired_s: float
) -> None:
    async def main() -> ExposureChecker:
        exposure = ExposureChecker(EventLog(VirtualClock(asyncio.get_running_loop()), MARKS))
        at_s = EpochTime(100)
        exposure.started("u", "S1", EpochTime(110), due_s=at_s, now_s=at_s)
        exposure.pause("S1", now_s=EpochTime(105))
        exposure.settle(now_s=EpochTime(115))
        exposure.resume("S1", now_s=EpochTime(120), until_s=EpochTime(until_s))
        exposure.stopped("u", now_s=EpochTime(140))
        return exposure

    exposure = run_virtual(main())
    assert (exposure.expired_s, exposure.excused_s) == (expired_s, 30.0 - expired_s)


def test_a_refresh_that_a_step_of_the_clock_makes_due_was_not_due_before() -> None:
    asked: list[tuple[EpochTime, EpochTime]] = []

    def late_until_s(due_s: EpochTime, needed_s: EpochTime, _: str) -> EpochTime:
        asked.append((due_s, needed_s))
        return EpochTime(0)

    async def main() -> None:
        journal = EventLog(VirtualClock(asyncio.get_running_loop()), MARKS)
        exposure = ExposureChecker(journal, late_until_s)
        for uid, due_s in (("late", 90), ("early", 180)):
            exposure.started(uid, "a/S", EpochTime(300), due_s=EpochTime(due_s), now_s=EpochTime(0))
        exposure.shift(-150.0, now_s=EpochTime(100))
        exposure.settle(now_s=EpochTime(151))

    run_virtual(main())
    assert asked == [(EpochTime(90), EpochTime(150)), (EpochTime(100), EpochTime(150))]


# The command


def test_the_command_prints_a_line_a_seed_and_a_summary() -> None:
    answer = subprocess.run(
        [
            sys.executable,
            "-c",
            "from reconciler.cli.main import main; main()",
            *("simulate", "--seeds", "2", "--from", "5", "--sessions", "5"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    first, second, pairs, modes, hours, summary = answer.stdout.splitlines()
    assert first.startswith("seed 5: ok; ")
    assert second.startswith("seed 6: ok; ")
    assert pairs.startswith("pairs of moves: ")
    assert modes.startswith("pairs of a mode and a move: ")
    assert hours.startswith("fleet-hours: ")
    assert summary == "2 seeds, 0 failed"
    assert answer.stderr == ""
