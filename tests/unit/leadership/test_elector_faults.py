"""Electors with different clock rates among faults from a seed: one leader, never two."""

from random import Random

import pytest

from reconciler.errors import ServerError, TransportError
from reconciler.lab.apiserver.fault_injection import InjectedFault
from reconciler.leadership.elector import UNSYNCED_DELAY_S
from reconciler.leadership.lease_timing import SLEW, ElectionTiming
from tests.unit.leadership.electors import Bench, Replica, on_virtual_time

TIMING = ElectionTiming(5, 3.0, 0.5)
ROUNDS = 40


def disturb(bench: Bench, replica: Replica, random: Random) -> None:
    """Let one thing happen to a replica's way to the server, or to itself."""
    faults = replica.faults
    match random.randrange(9):
        case 0:
            faults.partition(cut=True)
        case 1:
            faults.partition(cut=False)
        case 2:
            faults.silence_watches(silent=random.random() < 0.5)
        case 3:
            faults.drop_watches()
        case 4:
            error = random.choice([ServerError("500", status=500), TransportError("reset")])
            applied, count = random.random() < 0.5, random.randrange(1, 8)
            faults.fail_next(InjectedFault(error=error, applied=applied), verb="patch", count=count)
        case 5:
            delay_s = random.uniform(0.0, 2 * TIMING.request_s)
            faults.fail_next(InjectedFault(delay_s=delay_s), count=random.randrange(1, 4))
        case 6:
            replica.age_s = random.choice([0.0, 0.0, 60.0])
        case 7:
            replica.is_ready = random.random() < 0.7
        case 8:
            bench.clock.step_s += random.uniform(-3600.0, 3600.0)


def heal(replica: Replica) -> None:
    replica.faults.partition(cut=False)
    replica.faults.silence_watches(silent=False)
    replica.age_s, replica.is_ready = 0.0, True


@pytest.mark.parametrize("seed", range(12))
def test_there_are_never_two_and_in_the_end_there_is_one(seed: int) -> None:
    random = Random(seed)

    @on_virtual_time(timing=TIMING)
    async def scenario(bench: Bench) -> None:
        living = [bench.start(rate=1 + sign * SLEW) for sign in (-1, 1, random.choice([-1, 1]))]
        for _ in range(ROUNDS):
            index = random.randrange(len(living))
            if random.random() < 0.1:
                old = living[index]
                if random.random() < 0.5:
                    await old.kill()
                else:
                    heal(old)
                    old.elector.release()
                    await bench.wait_for("its end", old.task.done, 4 * TIMING.request_s)
                living[index] = bench.start(rate=1 + random.choice([-1, 1]) * SLEW)
            else:
                disturb(bench, living[index], random)
            await bench.watch_over(random.uniform(0.0, 4.0))
        for replica in living:
            heal(replica)
        await bench.watch_over(3 * TIMING.lease_s + UNSYNCED_DELAY_S)
        [leader] = bench.leaders
        assert {replica.elector.holder for replica in living} == {str(leader.me)}
        for replica in bench.replicas:
            beginnings = [word.split()[0] for word in replica.words]
            assert beginnings == ["began", "ended"] * (len(beginnings) // 2) + ["began"] * (
                len(beginnings) % 2
            )

    scenario()
