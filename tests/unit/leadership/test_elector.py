"""The elector in a world where replicas come and go: who leads when, and what it costs."""

import asyncio
from itertools import pairwise

import pytest

from reconciler.clock import Instant
from reconciler.errors import Forbidden, ServerError, TransportError
from reconciler.lab.apiserver.fault_injection import InjectedFault
from reconciler.leadership.elector import (
    MAX_HEARTBEAT_AGE_S,
    MAX_JITTER_S,
    MIN_TERM_S,
    NO_TOKEN_DELAY_S,
    UNSYNCED_DELAY_S,
    YIELD_DELAY_S,
)
from tests.unit.leadership.electors import LATENCY_S, TIMING, Bench, Replica, on_virtual_time

LEASE_S, DEADLINE_S, RETRY_S = TIMING.lease_s, TIMING.deadline_s, TIMING.retry_s
SOON_S = 4 * LATENCY_S
"""A request or two, and the watch event that follows."""

CUT = InjectedFault(error=TransportError("the answer was lost"), applied=True)


@on_virtual_time
async def test_the_first_replica_makes_the_lease_in_client_gos_form(bench: Bench) -> None:
    leader = bench.start()
    assert await bench.led(leader) <= Instant(MAX_JITTER_S + SOON_S)
    assert leader.words == ["began replica-0/0-n0"]
    assert leader.fence.term == "replica-0/0-n0"
    spec = bench.spec
    assert spec.pop("acquireTime") == spec.pop("renewTime")
    assert spec == {
        "holderIdentity": "replica-0_pod-0_n0",
        "leaseDurationSeconds": 15,
        "leaseTransitions": 0,
    }


@on_virtual_time
async def test_of_replicas_that_start_at_once_one_leads_and_all_know_it(bench: Bench) -> None:
    replicas = [bench.start() for _ in range(5)]
    await bench.watch_over(5.0)
    [leader] = bench.leaders
    assert {replica.elector.holder for replica in replicas} == {str(leader.me)}
    assert [len(replica.calls) for replica in replicas].count(0) == 4
    assert {line["leader"] for line in bench.events("leader_observed")} == {str(leader.me)}
    assert len(bench.events("leader_observed")) == 4


@on_virtual_time
async def test_a_renewal_costs_one_request_a_period_and_a_follower_one_watch(bench: Bench) -> None:
    leader, follower = await bench.start_pair()
    began_s = bench.now_s
    await bench.watch_over(60.0)
    renewals = [verb for verb, at_s in leader.requests if at_s >= began_s]
    assert set(renewals) == {"patch"}
    assert 60 / RETRY_S <= len(renewals) <= 60 / (0.9 * RETRY_S) + 1
    assert [verb for verb, _ in follower.requests] == ["list", "watch"]
    assert bench.spec["leaseTransitions"] == 0
    assert bench.spec["acquireTime"] < bench.spec["renewTime"]


@on_virtual_time
async def test_a_follower_tries_at_the_end_of_a_failed_leaders_lease(bench: Bench) -> None:
    leader, follower = await bench.start_pair()
    await leader.kill()
    claimed_s = bench.commits[-1].at + LEASE_S
    await bench.led(follower, 2 * LEASE_S)
    [(verb, tried_s)] = follower.requests[2:]
    assert verb == "patch"
    assert claimed_s <= tried_s <= claimed_s + MAX_JITTER_S + 0.001
    assert bench.spec["leaseTransitions"] == 1
    assert follower.fence.term == "replica-1/1-n1"


@on_virtual_time
async def test_a_follower_that_may_not_take_over_knows_that_the_lease_has_ended(
    bench: Bench,
) -> None:
    leader, follower = await bench.start_pair()
    follower.faults.rule = lambda verb, _: (
        InjectedFault(Forbidden("no", status=403)) if verb == "patch" else None
    )
    await bench.watch_over(2 * LEASE_S)
    assert not follower.fence.has_lapsed
    await leader.kill()
    await bench.watch_over(2 * LEASE_S)
    assert follower.fence.holder == str(leader.me)
    assert follower.fence.has_lapsed


@on_virtual_time
async def test_a_clean_stop_hands_the_lease_over_at_once(bench: Bench) -> None:
    leader, follower = await bench.start_pair()
    stopped_s = bench.now_s
    leader.elector.release()
    assert await bench.led(follower) - stopped_s <= SOON_S
    assert leader.words[1:] == ["ended resigned"]
    assert leader.task.done()
    assert bench.events("lease_released")
    assert bench.warnings() == []


@on_virtual_time
async def test_a_release_is_seen_right_after_the_server_has_ended_a_watch(bench: Bench) -> None:
    leader, follower = await bench.start_pair()
    await bench.watch_over(30.0)
    assert follower.faults.close_watches() == 1
    await bench.sleep(SOON_S)
    leader.elector.release()
    stopped_s = bench.now_s
    assert await bench.led(follower) - stopped_s <= SOON_S


@on_virtual_time
async def test_a_server_that_ends_watches_at_once_is_not_asked_in_a_loop(bench: Bench) -> None:
    _, follower = await bench.start_pair()
    until_s, before = bench.now_s + 10.0, len(follower.requests)
    while bench.now_s < until_s:
        follower.faults.close_watches()
        await bench.sleep(0.01)
    assert len(follower.requests) - before <= 2 * 10.0 / (0.3 * RETRY_S) + 2


@on_virtual_time
async def test_a_container_that_restarts_in_its_pod_leads_again_at_once(bench: Bench) -> None:
    leader, follower = await bench.start_pair()
    await leader.kill()
    started_s = bench.now_s
    again = bench.start("replica-0", pod_uid="pod-0")
    assert await bench.led(again) - started_s <= SOON_S
    assert bench.events("lease_taken_over")[0]["predecessor"] == str(leader.me)
    await bench.watch_over(30.0)
    assert follower.calls == []
    assert bench.spec["leaseTransitions"] == 1


@on_virtual_time
async def test_without_a_pod_a_restart_waits_like_anybody(bench: Bench) -> None:
    leader = bench.start(pod_uid="")
    await bench.led(leader)
    await leader.kill()
    again = bench.start("replica-0", pod_uid="")
    assert await bench.led(again, 2 * LEASE_S) >= Instant(LEASE_S)


@on_virtual_time
async def test_two_living_replicas_with_one_name_and_pod_change_once_and_rest(
    bench: Bench,
) -> None:
    first = bench.start("twin", pod_uid="pod")
    await bench.led(first)
    second = bench.start("twin", pod_uid="pod")
    # No kubelet runs two of them: for as long as the news travels, both may believe to lead.
    await asyncio.sleep(SOON_S)
    await bench.watch_over(120.0)
    assert first.words[1:] == [f"ended held by {second.me}"]
    assert bench.leaders == [second]
    assert bench.spec["leaseTransitions"] == 1


class TestLoss:
    def test_a_partition_ends_a_term_at_the_deadline_while_a_request_hangs(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            leader.faults.partition(cut=True)
            renewed_s = bench.commits[-1].at - LATENCY_S
            lost_s = await bench.wait_for("loss", lambda: len(leader.calls) == 2, 20.0)
            assert lost_s - renewed_s == pytest.approx(DEADLINE_S, abs=0.005)
            assert leader.words[1] == "ended not renewed for 10.0 s"
            assert not leader.leads
            claimed_s = bench.commits[-1].at + LEASE_S
            taken_s = await bench.led(follower, 20.0)
            assert claimed_s <= taken_s <= claimed_s + MAX_JITTER_S + SOON_S
            leader.faults.partition(cut=False)
            await bench.watch_over(60.0)
            assert bench.leaders == [follower]
            assert bench.warnings() == ["lease_unreachable", "lease_lost"]
            assert len(bench.events("lease_recovered")) == 1

        scenario()

    def test_a_short_partition_costs_nothing(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            leader.faults.partition(cut=True)
            await bench.watch_over(DEADLINE_S - 2 * RETRY_S)
            leader.faults.partition(cut=False)
            await bench.watch_over(60.0)
            assert [len(replica.calls) for replica in (leader, follower)] == [1, 0]

        scenario()

    def test_another_holder_that_is_seen_ends_it_though_a_renewal_hangs(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, _ = await bench.start_pair()
            leader.faults.fail_next(InjectedFault(delay_s=60.0), verb="patch")
            before = len(leader.requests)
            await bench.wait_for("a renewal", lambda: len(leader.requests) > before, 5.0)
            edited_s = bench.now_s
            bench.edit(holderIdentity="bogus")
            lost_s = await bench.wait_for("loss", lambda: len(leader.calls) == 2, 1.0)
            assert lost_s - edited_s <= 0.002
            assert leader.words[1] == "ended held by bogus"

        scenario()

    def test_being_cancelled_closes_the_fence(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader = await bench.start_leader()
            await leader.kill()
            assert not leader.fence.is_open

        scenario()


async def watch_a_stall(bench: Bench, replica: Replica, seconds: float) -> None:
    """Watch over a bench while a replica's main loop has no heartbeat."""
    for _ in range(round(seconds / 0.5)):
        await bench.watch_over(0.5)
        replica.age_s += 0.5


class TestMainLoop:
    def test_a_stalled_main_loop_loses_the_lease_and_may_have_it_again(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader = await bench.start_leader()
            leader.age_s = MAX_HEARTBEAT_AGE_S + 1
            stalled_s = bench.now_s
            lost_s = await bench.wait_for("loss", lambda: not leader.leads, 20.0)
            assert lost_s - stalled_s <= DEADLINE_S
            await bench.watch_over(40.0)
            assert not leader.leads
            assert bench.warnings() == ["main_loop_stalled", "lease_lost"]
            leader.age_s = 0.0
            await bench.led(leader)
            assert len(bench.events("main_loop_recovered")) == 1

        scenario()

    def test_a_process_that_was_stopped_is_no_stall_of_its_main_loop(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader = await bench.start_leader()
            stopped_s = MAX_HEARTBEAT_AGE_S + 14
            leader.clock.slept_s += stopped_s
            leader.age_s = stopped_s
            await bench.wait_for("loss", lambda: len(leader.calls) == 2, 5.0)
            await bench.led(leader)
            assert bench.warnings() == ["lease_lost"]
            await watch_a_stall(bench, leader, MAX_HEARTBEAT_AGE_S - DEADLINE_S + 2 * RETRY_S)
            assert bench.warnings() == ["lease_lost", "main_loop_stalled"]
            [line] = bench.events("main_loop_stalled")
            assert MAX_HEARTBEAT_AGE_S <= line["seconds"] < stopped_s

        scenario()

    def test_a_second_stop_before_the_main_loop_has_its_turn_is_no_stall_either(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader = await bench.start_leader()
            for _ in range(2):
                leader.clock.slept_s += MAX_HEARTBEAT_AGE_S + 14
                leader.age_s += MAX_HEARTBEAT_AGE_S + 14
                await watch_a_stall(bench, leader, RETRY_S)
            assert bench.warnings() == ["lease_lost"] * 2
            leader.age_s = 0.0
            await bench.led(leader)

        scenario()

    def test_a_late_elector_alone_hides_no_stalled_main_loop(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader = await bench.start_leader()
            leader.clock.slept_s += 100.0  # in which the main loop had its turn
            leader.age_s = 5.0
            await watch_a_stall(bench, leader, MAX_HEARTBEAT_AGE_S)
            assert bench.warnings() == ["lease_lost", "main_loop_stalled"]

        scenario()

    def test_stops_one_after_another_hide_no_stalled_main_loop(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            stop_s, run_s = DEADLINE_S + 1, 1.5
            for _ in range(6):  # a process with too little CPU: its main loop never has its turn
                for replica in (leader, follower):
                    replica.clock.slept_s += stop_s
                leader.age_s += stop_s
                for _ in range(10):
                    await bench.watch_over(run_s / 10)
                    leader.age_s += run_s / 10
            assert follower.leads
            assert "main_loop_stalled" in bench.warnings()

        scenario()

    def test_a_short_stall_keeps_it(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader = await bench.start_leader()
            leader.age_s = MAX_HEARTBEAT_AGE_S - 1
            await bench.watch_over(60.0)
            assert leader.words == ["began replica-0/0-n0"]

        scenario()

    def test_a_stalled_follower_leaves_a_free_lease_alone(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            follower.age_s = MAX_HEARTBEAT_AGE_S + 1
            leader.elector.release()
            await bench.watch_over(60.0)
            assert not bench.leaders
            follower.age_s = 0.0
            await bench.led(follower)

        scenario()


class TestCold:
    def test_a_replica_without_synced_caches_leaves_the_lease_to_a_ready_one(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, warm = await bench.start_pair()
            cold = bench.start("a-cold-one", ready=False)
            await bench.watch_over(1.0)
            leader.elector.release()
            await bench.watch_over(60.0)
            assert bench.leaders == [warm]
            assert cold.writes(Instant(0)) == []

        scenario()

    def test_it_acquires_it_once_it_is_ready(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            replica = bench.start(ready=False)
            await bench.watch_over(UNSYNCED_DELAY_S / 2)
            assert not replica.leads
            replica.is_ready = True
            warm_s = bench.now_s
            assert await bench.led(replica) - warm_s <= 0.05 + SOON_S

        scenario()

    @pytest.mark.parametrize("failures", [0, 3])
    def test_it_acquires_it_unsynced_if_no_other_does(self, failures: int) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            replica = bench.start(ready=False)
            unreachable = InjectedFault(error=ServerError("unreachable", status=503))
            replica.faults.fail_next(unreachable, verb="create", count=failures)
            led_s = float(await bench.led(replica, 20.0))
            assert (
                UNSYNCED_DELAY_S
                <= led_s
                <= UNSYNCED_DELAY_S + MAX_JITTER_S + failures * 0.6 * RETRY_S + 2 * SOON_S
            )

        scenario()

    def test_its_patience_begins_anew_with_each_holder(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            cold = bench.start("a-cold-one", ready=False)
            for old, new in ((leader, follower),):
                await bench.watch_over(UNSYNCED_DELAY_S + 1)
                old.elector.release()
                await bench.led(new)
            await follower.kill()
            taken_s = await bench.led(cold, 2 * LEASE_S + UNSYNCED_DELAY_S)
            assert taken_s >= bench.commits[-2].at + LEASE_S + UNSYNCED_DELAY_S

        scenario()


class TestWithoutToken:
    """A replica without a token so far, as in a rollout with the issuer unreachable."""

    def test_it_leaves_the_lease_to_one_that_has_a_token(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            fresh = bench.start("a-fresh-one", has_token=False)
            await bench.watch_over(1.0)
            leader.elector.release()
            await bench.watch_over(60.0)
            assert bench.leaders == [follower]
            assert fresh.writes(Instant(0)) == []

        scenario()

    def test_it_waits_for_a_crashed_leader_that_starts_again_with_a_token(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader = bench.start("an-old-one", pod_uid="pod-of-the-old-one")
            await bench.led(leader)
            fresh = bench.start("a-fresh-one", has_token=False)
            await bench.watch_over(5.0)
            await leader.kill()
            await bench.watch_over(LEASE_S + 10.0)
            assert bench.leaders == []
            again = bench.start("an-old-one", pod_uid="pod-of-the-old-one")
            await bench.led(again)
            await bench.watch_over(60.0)
            assert bench.leaders == [again]
            assert fresh.writes(Instant(0)) == []

        scenario()

    def test_with_no_token_anywhere_one_of_them_leads(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            first, second = (bench.start(has_token=False) for _ in range(2))
            await bench.watch_over(NO_TOKEN_DELAY_S - 1.0)
            assert bench.leaders == []
            await bench.watch_over(3.0)
            assert len(bench.leaders) == 1
            assert bench.leaders[0] in (first, second)

        scenario()

    def test_it_takes_the_lease_as_soon_as_it_has_a_token(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            replica = bench.start(has_token=False)
            await bench.watch_over(UNSYNCED_DELAY_S + 1.0)
            assert not replica.leads
            replica.has_token = True
            had_s = bench.now_s
            assert await bench.led(replica) - had_s <= 0.05 + SOON_S

        scenario()


class TestLackingToken:
    """A leader without a new token for long; the main loop sets `lacks_token`."""

    def test_it_yields_to_a_standby_that_has_one(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader = bench.start(has_token=False, lacks_token=True)
            taken_s = await bench.led(leader, NO_TOKEN_DELAY_S + 5.0)
            standby = bench.start()
            await bench.watch_over(MIN_TERM_S - (bench.now_s - taken_s) - 1.0)
            assert bench.leaders == [leader]
            yielded_s = await bench.led(standby, LEASE_S + 5.0)
            assert yielded_s - taken_s <= MIN_TERM_S + LEASE_S + MAX_JITTER_S + 2.0
            await bench.watch_over(3 * MIN_TERM_S)
            assert bench.leaders == [standby]
            [line] = bench.events("lease_left")
            assert line["log_level"] == "warning"

        scenario()

    def test_one_that_led_for_long_yields_as_soon_as_it_lacks_a_token(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, standby = await bench.start_pair()
            await bench.watch_over(MIN_TERM_S)
            leader.lacks_token = True
            lacked_s = bench.now_s
            assert await bench.led(standby, 30.0) - lacked_s <= LEASE_S + MAX_JITTER_S + SOON_S

        scenario()

    def test_a_token_that_comes_in_time_lets_it_go_on(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, _ = await bench.start_pair()
            await bench.watch_over(MIN_TERM_S)
            leader.lacks_token = True
            await bench.watch_over(5.0)
            leader.lacks_token = False
            await bench.watch_over(2 * MIN_TERM_S)
            assert bench.leaders == [leader]
            assert len(leader.words) == 1

        scenario()

    def test_replicas_that_all_lack_one_change_once_in_five_minutes_at_most(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            replicas = [bench.start(has_token=False, lacks_token=True) for _ in range(3)]
            await bench.watch_over(3600.0)
            began_s = sorted(at for one in replicas for text, at in one.calls if "began" in text)
            assert all(b - a >= MIN_TERM_S for a, b in pairwise(began_s))
            assert bench.spec["leaseTransitions"] == 0  # the one that yields is the next to lead
            free_s = YIELD_DELAY_S + LEASE_S + 2 * RETRY_S
            assert all(b - a <= MIN_TERM_S + free_s for a, b in pairwise(began_s))
            assert len(began_s) >= 3600.0 / (MIN_TERM_S + free_s)

        scenario()

    def test_what_it_sent_before_it_left_has_ended_when_another_leads(self) -> None:
        """It gives nothing back early: the Lease runs out, as that of a leader cut off does."""

        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, standby = await bench.start_pair()
            await bench.watch_over(MIN_TERM_S)
            leader.lacks_token = True
            closed_s = await bench.wait_for("the fence is shut", lambda: not leader.leads, 30.0)
            renewed_s = max(c.at for c in bench.commits if c.user == str(leader.me))
            assert closed_s <= renewed_s + DEADLINE_S + SOON_S
            assert await bench.led(standby, 30.0) >= renewed_s + LEASE_S

        scenario()


class TestResigning:
    def test_a_standby_releases_without_a_write(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            follower.elector.release()
            await asyncio.wait_for(asyncio.shield(follower.task), SOON_S)
            assert follower.calls == []
            assert follower.writes(Instant(0)) == []
            assert bench.leaders == [leader]

        scenario()

    def test_a_replica_releases_before_it_has_seen_anything(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            replica = bench.start(prepare=lambda each: each.faults.partition(cut=True))
            await bench.watch_over(1.0)
            replica.elector.release()
            await asyncio.wait_for(asyncio.shield(replica.task), SOON_S)
            assert replica.requests == []

        scenario()

    @staticmethod
    async def _resign_during_a_renewal(
        bench: Bench, fault: InjectedFault
    ) -> tuple[Replica, Replica]:
        leader, follower = await bench.start_pair()
        leader.faults.fail_next(fault, verb="patch")
        before = len(leader.requests)
        await bench.wait_for("a renewal", lambda: len(leader.requests) > before, 5.0)
        leader.elector.release()
        return leader, follower

    def test_a_slow_renewal_ends_and_then_the_lease_is_released(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await self._resign_during_a_renewal(
                bench, InjectedFault(delay_s=3.0)
            )
            resigned_s = bench.now_s
            assert await bench.led(follower, 5.0) - resigned_s <= 3.0 + SOON_S
            assert leader.words[-1] == "ended resigned"

        scenario()

    def test_a_renewal_whose_answer_is_lost_does_not_keep_it_from_being_released(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            leader.faults.silence_watches(silent=True)
            leader.faults.fail_next(CUT, verb="patch")
            count = len(bench.commits)
            await bench.wait_for("a renewal", lambda: len(bench.commits) > count, 5.0)
            leader.elector.release()
            resigned_s = bench.now_s
            assert await bench.led(follower, 5.0) - resigned_s <= 2 * SOON_S
            assert bench.warnings()[-1] != "lease_not_released"

        scenario()

    def test_an_unreachable_server_does_not_keep_a_replica_from_ending(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, follower = await bench.start_pair()
            leader.faults.partition(cut=True)
            await bench.watch_over(RETRY_S + 0.5)
            leader.elector.release()
            resigned_s = bench.now_s
            await bench.wait_for("the end", leader.task.done, 20.0)
            assert bench.now_s - resigned_s <= 2 * TIMING.request_s
            assert bench.warnings()[-1] == "lease_not_released"
            assert not leader.leads
            await bench.led(follower, 2 * LEASE_S)

        scenario()

    def test_what_another_holds_by_then_is_not_touched(self) -> None:
        @on_virtual_time
        async def scenario(bench: Bench) -> None:
            leader, _ = await bench.start_pair()
            leader.faults.silence_watches(silent=True)
            bench.edit(holderIdentity="bogus")
            leader.elector.release()
            await bench.wait_for("the end", leader.task.done, 5.0)
            assert bench.spec["holderIdentity"] == "bogus"

        scenario()
