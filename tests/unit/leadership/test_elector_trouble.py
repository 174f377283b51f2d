"""Leases edited, deleted and forbidden, servers that fail: one line, no writes, and recovery."""

import asyncio
import itertools
from typing import Any

import pytest

from reconciler.clock import LONG_AGO, Instant, parse_utc
from reconciler.errors import Conflict, Forbidden, KubeError, ServerError, TransportError
from reconciler.kube.authorization import PATIENCE_S
from reconciler.lab.apiserver.fault_injection import InjectedFault
from reconciler.lab.apiserver.kinds import LEASES, NAMESPACES
from reconciler.leadership.elector import MAX_JITTER_S, YIELD_DELAY_S
from reconciler.leadership.lease import MOST_TRANSITIONS
from reconciler.leadership.lease_timing import MAX_LEASE_S, ElectionTiming
from tests.unit.leadership.electors import (
    HAND,
    LATENCY_S,
    NAME,
    NAMESPACE,
    TIMING,
    Bench,
    Replica,
    on_virtual_time,
)

LEASE_S, DEADLINE_S, RETRY_S = TIMING.lease_s, TIMING.deadline_s, TIMING.retry_s
SOON_S = 4 * LATENCY_S
NOWHERE = "2999-12-31T23:59:59.000000Z"


def lose_answers(replica: Replica, *, most: int = 1_000_000) -> None:
    """Apply the replica's writes of the Lease and lose their answers, the first `most` of them."""
    lost = InjectedFault(error=TransportError("the answer is lost"), applied=True)
    left = itertools.chain(itertools.repeat(lost, most), itertools.repeat(None))
    replica.faults.rule = lambda verb, _: next(left) if verb in ("create", "patch") else None


async def annotated(bench: Bench, times: int, every_s: float = 1.0) -> None:
    """Annotate the Lease as another client does, and let time pass after each."""
    for _ in range(times):
        body = {"metadata": {"annotations": {"note": str(bench.now_s)}}}
        bench.core.patch(LEASES, NAMESPACE, NAME, body, by=HAND)
        await bench.watch_over(every_s)


def failing(replica: Replica, error: KubeError | None, *verbs: str) -> None:
    """Answer these verbs (none: all) with an error from now on; None: answer them again."""
    replica.faults.rule = lambda verb, _: (
        InjectedFault(error=error) if error is not None and (not verbs or verb in verbs) else None
    )


def forbidden() -> Forbidden:
    return Forbidden("patch leases: the API server answered 403 Forbidden", status=403)


class TestByHand:
    def test_a_deleted_lease_is_made_again_by_its_holder_and_counts_on(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            bench.delete()
            deleted_s = bench.now_s
            await bench.wait_for("loss", lambda: len(leader.calls) == 2, 0.01)
            assert leader.words[1] == "ended the Lease was deleted"
            assert await bench.led(leader) - deleted_s <= MAX_JITTER_S + SOON_S
            assert bench.spec["leaseTransitions"] == 1
            await bench.watch_over(60.0)
            assert follower.calls == []
            assert bench.warnings() == ["lease_lost"]

        scenario()

    def test_a_follower_waits_for_a_holder_that_may_not_know_of_the_deletion(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            leader.faults.partition(cut=True)
            renewed_s = bench.commits[-1].at
            bench.delete()
            taken_s = await bench.led(follower, 2 * LEASE_S)
            assert renewed_s + LEASE_S <= taken_s <= renewed_s + LEASE_S + MAX_JITTER_S + SOON_S
            assert bench.spec["leaseTransitions"] == 1

        scenario()

    def test_a_lease_that_was_emptied_is_taken_back_by_its_holder(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            bench.edit(holderIdentity="")
            await bench.wait_for("loss", lambda: len(leader.calls) == 2, 0.01)
            assert leader.words[1] == "ended its holder was emptied"
            await bench.led(leader)
            await bench.watch_over(60.0)
            assert follower.calls == []
            assert bench.spec["leaseTransitions"] == 1
            assert bench.warnings() == ["lease_lost"]

        scenario()

    @pytest.mark.parametrize(
        "edit",
        [
            {"holderIdentity": None, "leaseDurationSeconds": None, "acquireTime": None},
            {"holderIdentity": ""},
        ],
        ids=["all removed", "emptied"],
    )
    def test_a_follower_waits_for_a_holder_that_may_not_know_of_the_edit(
        self, edit: dict[str, Any]
    ) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            leader.faults.partition(cut=True)
            renewed_s = bench.commits[-1].at
            bench.edit(**edit)
            assert await bench.led(follower, 2 * LEASE_S) >= renewed_s + LEASE_S

        scenario()

    @pytest.mark.parametrize(
        ("edit", "waits_s"),
        [
            ({}, LEASE_S),
            ({"leaseDurationSeconds": 40}, 40),
            ({"leaseDurationSeconds": 2**31 - 1}, MAX_LEASE_S),
            ({"leaseDurationSeconds": None, "leaseTransitions": None}, LEASE_S),
            ({"acquireTime": NOWHERE, "renewTime": NOWHERE}, LEASE_S),
            ({"acquireTime": None, "renewTime": None}, LEASE_S),
        ],
        ids=["alone", "long", "absurd", "no duration", "future", "no times"],
    )
    def test_a_holder_that_does_not_exist_is_waited_for_and_no_longer(
        self, edit: dict[str, Any], waits_s: float
    ) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader = await bench.start_leader()
            bench.edit(holderIdentity="bogus", **edit)
            edited_s = bench.now_s
            await bench.wait_for("loss", lambda: len(leader.calls) == 2, 0.01)
            await bench.watch_over(waits_s - 1)
            taken_s = await bench.led(leader)
            assert waits_s <= taken_s - edited_s <= waits_s + MAX_JITTER_S + SOON_S
            assert bench.warnings() == ["lease_lost"]
            assert bench.spec["leaseDurationSeconds"] == LEASE_S

        scenario()

    @pytest.mark.parametrize(
        ("life_s", "edit_s", "waits_s"),
        [
            (60.0, 2**31 - 1, LEASE_S),
            (60.0, 140, LEASE_S),
            (60.0, 1, LEASE_S),
            (300.0, 2**31 - 1, 50.0),
            (300.0, 40, 40.0),
            (900.0, 2**31 - 1, MAX_LEASE_S),
            (1e9, 2**31 - 1, MAX_LEASE_S),
        ],
    )
    def test_a_duration_that_was_edited_costs_no_more_than_a_sixth_of_a_token(
        self, life_s: float, edit_s: int, waits_s: float
    ) -> None:
        """The leader fails as well; the line says when the wait for it ends."""

        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            follower.token_life_s = life_s
            await leader.kill()
            bench.edit(leaseDurationSeconds=edit_s)
            edited_s, edited_wall_s = bench.now_s, bench.clock.wall()
            taken_s = await bench.led(follower, MAX_LEASE_S + 5)
            assert waits_s - DEADLINE_S <= taken_s - edited_s <= waits_s + MAX_JITTER_S + SOON_S
            [line] = bench.events("lease_duration_edited")
            assert (line["holder"], line["duration_s"]) == (str(leader.me), edit_s)
            until_s = parse_utc(line["until"])
            assert until_s is not None
            assert abs(until_s - edited_wall_s - line["waits_s"]) <= 1.0
            assert taken_s - edited_s - line["waits_s"] <= MAX_JITTER_S + SOON_S

        scenario()

    def test_an_edit_is_limited_by_a_life_that_becomes_known_later(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader = await bench.start_leader()
            await leader.kill()
            bench.edit(leaseDurationSeconds=2**31 - 1)
            follower = bench.start()
            await bench.watch_over(5.0)
            follower.token_life_s = 60.0
            await bench.led(follower, LEASE_S)

        scenario()

    def test_a_holder_that_claims_long_itself_is_believed(self) -> None:
        """Replicas of two settings, as in a rollout: its word counts, however short tokens live."""

        @on_virtual_time(timing=ElectionTiming(120, 80.0, 2.0))
        async def scenario(bench: Bench) -> None:
            leader = await bench.start_leader()
            bench.timing = TIMING
            follower = bench.start()
            follower.token_life_s = 60.0
            await bench.watch_over(1.0)
            renewed_s = bench.commits[-1].at
            await leader.kill()
            assert await bench.led(follower, 130) >= renewed_s + 120
            assert bench.events("lease_duration_edited") == []

        scenario()

    def test_a_long_name_of_a_holder_is_shown_in_part(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            _, follower = await bench.start_pair()
            bench.edit(holderIdentity="x" * 5000)
            await bench.watch_over(LEASE_S - 1)
            shown = [text for line in bench.logs for text in map(str, line.values())]
            assert max(map(len, shown)) < 400
            assert any("xxx" in text for text in shown)
            assert len(follower.fence.holder) < 400

        scenario()

    @pytest.mark.parametrize(
        "edit",
        [
            {"renewTime": NOWHERE, "acquireTime": NOWHERE},
            {"renewTime": None, "acquireTime": None},
            {"leaseDurationSeconds": 2**31 - 1},
            {"leaseDurationSeconds": 1},
            {"leaseTransitions": 2**31 - 1},
            {"leaseTransitions": None},
            {"preferredHolder": "another-replica"},
        ],
        ids=["future", "no times", "absurd", "short", "most", "no count", "preferred"],
    )
    def test_an_edit_that_leaves_the_holder_costs_nothing(self, edit: dict[str, Any]) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            bench.edit(**edit)
            await bench.watch_over(60.0)
            assert [len(replica.calls) for replica in (leader, follower)] == [1, 0]
            assert bench.spec["leaseDurationSeconds"] == LEASE_S
            assert bench.warnings() == []

        scenario()

    def test_a_count_at_its_end_does_not_end_the_takeovers(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            bench.edit(leaseTransitions=2**31 - 1)
            await bench.watch_over(5.0)
            leader.elector.release()
            await bench.led(follower)
            assert bench.spec["leaseTransitions"] == MOST_TRANSITIONS + 1

        scenario()

    def test_an_annotation_by_hand_makes_one_conflict_at_most(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, _ = await bench.start_pair()
            leader.faults.silence_watches(silent=True)
            body = {"metadata": {"annotations": {"note": "x"}}}
            kind = bench.commits[-1].kind
            bench.core.patch(kind, NAMESPACE, "token-reconciler", body, by=HAND)
            await bench.watch_over(60.0)
            assert leader.words == ["began replica-0/0-n0"]
            assert bench.lease["metadata"]["annotations"] == {"note": "x"}
            assert bench.warnings() == []

        scenario()

    def test_a_follower_does_not_take_anothers_edits_for_renewals(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            await leader.kill()
            renewed_s = bench.commits[-1].at
            await annotated(bench, int(LEASE_S + 2 * RETRY_S))
            assert follower.leads
            assert follower.calls[0][1] <= renewed_s + LEASE_S + MAX_JITTER_S + SOON_S

        scenario()

    def test_a_leader_does_not_take_anothers_edits_for_writes_of_its_own(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader = await bench.start_leader()
            failing(leader, ServerError("503", status=503), "patch")
            await annotated(bench, int(DEADLINE_S + RETRY_S))
            assert not leader.leads
            failing(leader, None)
            await bench.led(leader, RETRY_S)

        scenario()

    def test_an_edit_that_is_seen_before_the_answer_to_a_write_is_not_one_of_ours(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader = await bench.start_leader()
            leader.kube.late_s["patch"] = 0.5
            for _ in range(4):
                renewed = bench.spec["renewTime"]
                while bench.spec["renewTime"] == renewed:
                    await bench.sleep(0.01)
                await annotated(bench, 1, 0.1)
            failing(leader, ServerError("503", status=503), "patch")
            await bench.watch_over(DEADLINE_S + RETRY_S)
            failing(leader, None)
            await bench.led(leader, RETRY_S)

        scenario()

    def test_a_holder_that_learns_of_another_by_a_conflict_alone_ends_its_term_at_once(
        self,
    ) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, _ = await bench.start_pair()
            leader.faults.silence_watches(silent=True)
            bench.edit(holderIdentity="bogus")
            lost_s = await bench.wait_for("loss", lambda: len(leader.calls) == 2, RETRY_S + SOON_S)
            assert leader.words[1] == "ended held by bogus"
            await bench.watch_over(LEASE_S / 2)
            assert leader.writes(lost_s) == []

        scenario()

    def test_a_lease_that_cannot_be_read_is_said_once_and_not_taken_for_absent(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader = await bench.start_leader()
            bench.edit(holderIdentity=5)
            await bench.watch_over(60.0)
            assert not leader.leads
            assert leader.words[1:] == ["ended not renewed for 10.0 s"]
            assert sorted(bench.warnings()) == ["lease_lost", "lease_unreachable"]
            assert "create" not in [verb for verb, at_s in leader.requests if at_s > Instant(5)]
            bench.edit(holderIdentity="")
            await bench.led(leader, 2 * LEASE_S)

        scenario()


class TestRefused:
    @pytest.mark.parametrize("verbs", [(), ("list",), ("watch",), ("create",)])
    def test_a_missing_right_is_one_line_at_the_start_and_heals(self, verbs: tuple[str]) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            replica = bench.start(prepare=lambda each: failing(each, forbidden(), *verbs))
            await bench.watch_over(120.0)
            assert replica.leads is (verbs == ("watch",))
            assert bench.warnings() == ["lease_refused"]
            [line] = bench.events("lease_refused")
            assert "list, watch, create, patch on leases.coordination.k8s.io" in line["needs"]
            assert NAMESPACE in line["needs"]
            failing(replica, None)
            await bench.led(replica)
            await bench.watch_over(DEADLINE_S + 2 * RETRY_S)
            assert len(bench.events("lease_recovered")) == 1
            assert bench.warnings() == ["lease_refused"]

        scenario()

    def test_a_leader_without_the_right_to_renew_stands_down_and_comes_back(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader = await bench.start_leader()
            failing(leader, forbidden(), "patch")
            refused_s = bench.now_s
            await bench.wait_for("loss", lambda: len(leader.calls) == 2, DEADLINE_S + 1)
            await bench.watch_over(120.0)
            assert not leader.leads
            assert bench.warnings() == ["lease_refused", "lease_lost"]
            assert len(leader.writes(refused_s)) <= 130 / (0.3 * RETRY_S)
            failing(leader, None)
            await bench.led(leader)
            await bench.watch_over(DEADLINE_S + 2 * RETRY_S)
            assert len(bench.events("lease_recovered")) == 1

        scenario()

    def test_a_leader_that_may_not_watch_any_more_goes_on_leading(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            failing(leader, forbidden(), "watch", "list")
            leader.faults.drop_watches()
            await bench.watch_over(120.0)
            assert [len(replica.calls) for replica in (leader, follower)] == [1, 0]
            assert bench.warnings() == ["lease_refused"]

        scenario()

    def test_a_namespace_that_is_missing_is_one_line_and_waited_for(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            bench.core.delete(NAMESPACES, "", NAMESPACE)
            bench.core.finish_namespace(NAMESPACE)
            replica = bench.start()
            await bench.watch_over(60.0)
            assert not replica.leads
            assert bench.warnings() == ["lease_refused"]
            assert "must exist" in bench.events("lease_refused")[0]["needs"]
            bench.core.create(NAMESPACES, "", {"metadata": {"name": NAMESPACE}})
            await bench.led(replica)

        scenario()

    def test_a_namespace_that_goes_ends_the_term_and_may_come_back(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader = await bench.start_leader()
            bench.core.delete(NAMESPACES, "", NAMESPACE)
            bench.delete()
            await bench.watch_over(5.0)
            bench.core.finish_namespace(NAMESPACE)
            await bench.watch_over(30.0)
            assert not leader.leads
            assert bench.warnings() == ["lease_lost", "lease_refused"]
            bench.core.create(NAMESPACES, "", {"metadata": {"name": NAMESPACE}})
            await bench.led(leader)

        scenario()


class TestFailingServer:
    def test_an_outage_of_the_server_is_said_once_each_time(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            for count in (1, 2):
                for replica in (leader, follower):
                    failing(replica, ServerError("503", status=503))
                    replica.faults.drop_watches()
                await bench.watch_over(60.0)
                assert not bench.leaders
                for replica in (leader, follower):
                    failing(replica, None)
                await bench.watch_over(LEASE_S)
                assert len(bench.leaders) == 1
                assert len(bench.events("lease_unreachable")) == 2 * count
                assert len(bench.events("lease_recovered")) == 2 * count

        scenario()

    def test_lost_answers_to_writes_are_one_outage_though_the_watch_shows_each_write(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader = await bench.start_leader()
            lose_answers(leader)
            before = len(bench.commits)
            await bench.watch_over(120.0)
            assert len(bench.commits) > before + 5
            assert len(bench.events("lease_unreachable")) == 1
            assert len(bench.events("lease_recovered")) == 0
            assert leader.fence.transitions == 0
            leader.faults.rule = None
            await bench.led(leader, LEASE_S + YIELD_DELAY_S)
            await bench.watch_over(DEADLINE_S + 2 * RETRY_S)
            assert len(bench.events("lease_unreachable")) == 1
            assert len(bench.events("lease_recovered")) == 1

        scenario()

    def test_a_leader_whose_writes_get_no_answer_leaves_the_lease_to_another(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            lose_answers(leader)
            await bench.led(follower, DEADLINE_S + LEASE_S + MAX_JITTER_S + RETRY_S)
            await bench.watch_over(4 * LEASE_S)
            assert follower.leads
            assert len(leader.calls) == 2

        scenario()

    def test_one_answer_that_is_lost_delays_no_replica(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            replica = bench.start(prepare=lambda one: lose_answers(one, most=1))
            await bench.led(replica, 2 * RETRY_S)

        scenario()

    @pytest.mark.parametrize("answers", [(503, 0), (503, 403)])
    def test_one_of_two_servers_that_fails_is_one_outage(self, answers: tuple[int, ...]) -> None:
        faults = {
            0: None,
            403: InjectedFault(forbidden()),
            503: InjectedFault(ServerError("503", status=503)),
        }

        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader = await bench.start_leader()
            turns = itertools.cycle(answers)
            leader.faults.rule = lambda verb, _: faults[next(turns)] if verb == "patch" else None
            await bench.watch_over(5 * LEASE_S)
            problems = {0: "", 403: "lease_refused", 503: "lease_unreachable"}
            for problem in {problems[answer] for answer in answers} - {""}:
                assert len(bench.events(problem)) == 1
            assert not bench.events("lease_recovered")
            leader.faults.rule = None
            await bench.watch_over(2 * LEASE_S)
            assert leader.leads
            assert len(bench.events("lease_recovered")) == 1

        scenario()

    def test_the_outage_of_a_standbys_write_ends_though_it_writes_no_more(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            for replica in (leader, follower):
                failing(replica, ServerError("503", status=503), "patch")
            await bench.watch_over(2 * LEASE_S)
            assert len(bench.events("lease_unreachable")) == 2
            failing(leader, None)
            await bench.led(leader)
            await bench.watch_over(DEADLINE_S + 2 * RETRY_S)
            assert len(bench.events("lease_recovered")) == 2
            assert len(bench.events("lease_unreachable")) == 2

        scenario()

    def test_a_refusal_that_no_version_explains_is_not_repeated_in_a_loop(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            refused = Conflict("a webhook says so", status=409)
            replica = bench.start(prepare=lambda each: failing(each, refused, "create"))
            await bench.watch_over(60.0)
            assert not replica.leads
            assert len(replica.writes(Instant(0))) <= 60 / (0.3 * RETRY_S) + 1
            failing(replica, None)
            await bench.led(replica)

        scenario()

    def test_failures_shorter_than_the_deadline_cost_nothing(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            failing(leader, ServerError("500", status=500), "patch")
            await bench.watch_over(DEADLINE_S - 2 * RETRY_S)
            failing(leader, None)
            await bench.watch_over(30.0)
            assert [len(replica.calls) for replica in (leader, follower)] == [1, 0]

        scenario()

    def test_watches_that_are_reset_are_opened_again_without_a_word(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            for _ in range(10):
                follower.faults.drop_watches()
                await bench.watch_over(5.0)
            leader.elector.release()
            stopped_s = bench.now_s
            assert await bench.led(follower) - stopped_s <= SOON_S
            assert bench.warnings() == []

        scenario()

    def test_silent_watches_never_make_two_holders_and_keep_no_replica_from_the_lease(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            for replica in (leader, follower):
                replica.faults.silence_watches(silent=True)
            await bench.watch_over(120.0)
            assert bench.leaders == [leader]
            assert [len(replica.calls) for replica in (leader, follower)] == [1, 0]
            await leader.kill()
            await bench.led(follower, 2 * LEASE_S + 2 * MAX_JITTER_S)

        scenario()

    def test_a_takeover_whose_answer_is_lost_is_known_from_the_lease_itself(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            lost = InjectedFault(error=TransportError("the answer was lost"), applied=True)
            follower.faults.fail_next(lost, verb="patch")
            leader.elector.release()
            stopped_s = bench.now_s
            assert await bench.led(follower) - stopped_s <= RETRY_S
            assert bench.spec["leaseTransitions"] == 1
            assert follower.words == ["began replica-1/1-n1"]

        scenario()

    def test_a_creation_whose_answer_is_lost_is_known_from_the_lease_itself(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            lost = InjectedFault(error=TransportError("the answer was lost"), applied=True)
            replica = bench.start(prepare=lambda each: each.faults.fail_next(lost, verb="create"))
            await bench.led(replica)
            assert replica.words == ["began replica-0/0-n0"]
            assert bench.spec["leaseTransitions"] == 0

        scenario()

    @pytest.mark.parametrize("silent", [False, True])
    def test_renewals_whose_answers_are_lost_do_not_count(self, silent: bool) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader = await bench.start_leader()
            leader.faults.silence_watches(silent=silent)
            renewed_s = bench.commits[-1].at - LATENCY_S
            lost = InjectedFault(error=TransportError("the answer was lost"), applied=True)
            leader.faults.rule = lambda verb, _: lost if verb == "patch" else None
            ended_s = await bench.wait_for("loss", lambda: len(leader.calls) == 2, 20.0)
            assert ended_s - renewed_s == pytest.approx(DEADLINE_S, abs=0.005)
            leader.faults.rule = None
            await bench.led(leader, 2 * LEASE_S)

        scenario()


class TestRestoredStore:
    def test_each_replica_tells_once_that_the_lease_is_of_an_earlier_history(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            version = bench.core.version
            await bench.watch_over(60.0)
            lost = bench.core.version
            bench.core.restore(version)
            await bench.watch_over(2 * RETRY_S)
            assert bench.core.version < lost
            reason = f"the Lease has version {version}, and {lost} was known: was etcd restored?"
            assert [leader.history_rewinds, follower.history_rewinds] == [[reason], [reason]]
            await bench.watch_over(120.0)
            assert bench.core.version > lost
            assert [len(leader.history_rewinds), len(follower.history_rewinds)] == [1, 1]
            assert bench.leaders == [leader]

        scenario()

    def test_a_read_that_comes_late_is_of_no_earlier_history(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            replicas = await bench.start_pair()
            for replica in replicas:
                replica.kube.late_s["list"] = 1.5 * RETRY_S
            for _ in range(10):
                for replica in replicas:
                    replica.faults.close_watches()
                await bench.watch_over(5.0 * RETRY_S)
            assert [replica.history_rewinds for replica in replicas] == [[], []]
            reads = [verb for replica in replicas for verb, _ in replica.requests if verb == "list"]
            assert len(reads) > 20

        scenario()


class TestLateAnswers:
    def test_a_read_that_the_watch_has_overtaken_is_not_believed(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            follower.faults.silence_watches(silent=True)
            follower.kube.late_s["list"] = 2.0
            before = len(follower.requests)
            asked = before + 2  # a patch that conflicts, and then the list
            await bench.wait_for("a list", lambda: len(follower.requests) == asked, 2 * LEASE_S)
            await bench.sleep(SOON_S)
            follower.faults.silence_watches(silent=False)
            leader.elector.release()
            assert await bench.led(follower, 3.0) > LONG_AGO

        scenario()

    def test_a_takeover_that_was_undone_before_its_answer_came_is_none(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            follower.kube.late_s["patch"] = 2.0
            leader.elector.release()
            taken = f"{follower.me}"
            await bench.wait_for("it", lambda: bench.spec["holderIdentity"] == taken, 1.0)
            bench.edit(holderIdentity="bogus")
            await bench.watch_over(LEASE_S - 1.0)
            assert follower.calls == []
            assert bench.events("leader_observed")[-1]["leader"] == "bogus"

        scenario()

    def test_a_takeover_whose_answer_a_suspended_machine_heard_too_late_is_none(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            follower.kube.late_s["patch"] = 2.0
            leader.elector.release()
            taken = f"{follower.me}"
            await bench.wait_for("it", lambda: bench.spec["holderIdentity"] == taken, 1.0)
            follower.clock.slept_s = 60.0
            await bench.watch_over(2.0)
            assert follower.calls == []
            await bench.led(follower, 2.0 + RETRY_S)

        scenario()

    def test_a_leader_that_was_suspended_has_lost_its_lease(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader = await bench.start_leader()
            leader.clock.slept_s = 60.0
            assert not leader.leads
            await bench.wait_for("loss", lambda: len(leader.calls) == 2, 1.0 + SOON_S)
            await bench.led(leader)

        scenario()


class TestClocks:
    @pytest.mark.parametrize("step_s", [3600.0, -3600.0])
    def test_a_step_of_the_wall_clock_changes_the_times_written_and_nothing_else(
        self, step_s: float
    ) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            bench.clock.step_s = step_s
            await bench.watch_over(60.0)
            assert [len(replica.calls) for replica in (leader, follower)] == [1, 0]
            assert (bench.spec["renewTime"] > bench.spec["acquireTime"]) is (step_s > 0)
            await leader.kill()
            claimed_s = bench.commits[-1].at + LEASE_S
            assert await bench.led(follower, 2 * LEASE_S) >= claimed_s

        scenario()


class TestServerThatHasJustStarted:
    def test_its_403_is_no_missing_right_and_costs_no_leadership(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            restarts = [
                asyncio.create_task(each.faults.restart(down_s=2.0, unauthorized_s=4.0))
                for each in (leader, follower)
            ]
            await bench.watch_over(60.0)
            await asyncio.gather(*restarts)
            assert len(leader.calls) == 1
            assert follower.calls == []
            assert "lease_refused" not in bench.warnings()

        scenario()

    def test_a_right_that_is_gone_is_called_missing_after_a_while(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader = await bench.start_leader()
            await bench.watch_over(2 * RETRY_S)
            failing(leader, forbidden())
            await bench.watch_over(PATIENCE_S - 2.0)
            assert "lease_refused" not in bench.warnings()
            await bench.watch_over(5.0)
            assert bench.warnings().count("lease_refused") == 1

        scenario()
