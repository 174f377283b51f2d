"""Who we are: unlike every other process, and known to the next one of our pod."""

import pytest

from reconciler.leadership.lease import Identity

POD = "11111111-2222"
ME = Identity("replica-0", POD, "bbbb")


def test_processes_of_one_pod_have_different_names() -> None:
    assert str(ME) == "replica-0_11111111-2222_bbbb"
    assert str(Identity("replica-0", POD, "cccc")) != str(ME)


def test_outside_of_a_pod_the_nonce_alone_tells_processes_apart() -> None:
    assert str(Identity("host", "", "bbbb")) == "host_bbbb"


@pytest.mark.parametrize(
    ("me", "holder", "wanted"),
    [
        (ME, "replica-0_11111111-2222_aaaa", True),
        (ME, str(ME), False),
        (ME, "", False),
        (ME, "replica-0_11111111-3333_aaaa", False),
        (ME, "replica-1_11111111-2222_aaaa", False),
        (ME, "replica-0_aaaa", False),
        (ME, "replica-0_11111111-2222", False),
        (Identity("host", "", "bbbb"), "host_aaaa", False),
        (Identity("host", "", "bbbb"), "host__aaaa", False),
    ],
    ids=[
        "same pod", "ourselves", "no holder", "other pod", "other name", "no pod", "no process",
        "we have no pod", "empty pod",
    ],
)  # fmt: skip
def test_a_predecessor_is_another_process_of_our_pod(
    me: Identity, holder: str, wanted: bool
) -> None:
    assert me.is_predecessor(holder) is wanted


def test_a_term_names_replica_count_and_process() -> None:
    assert ME.term(7) == "replica-0/7-bbbb"
