"""The timer queue returns each key once, in order, at its last instant."""

from hypothesis import given
from hypothesis import strategies as st

from reconciler.clock import Instant
from reconciler.lab.kubelet.node import TimerQueue

steps = st.lists(
    st.tuples(st.sampled_from(["set", "hasten", "drop"]), st.integers(0, 5), st.integers(0, 20))
)


@given(steps, st.integers(0, 20))
def test_agenda_agrees_with_a_plain_dict(steps: list[tuple[str, int, int]], now: int) -> None:
    agenda: TimerQueue[int] = TimerQueue()
    model: dict[int, int] = {}
    for verb, key, at in steps:
        if verb == "drop":
            agenda.drop(key)
            model.pop(key, None)
        elif verb == "set":
            agenda.set(key, Instant(at))
            model[key] = at
        else:
            agenda.set_earlier(key, Instant(at))
            model[key] = min(at, model.get(key, at))

    taken = agenda.due(Instant(now), limit=100)

    expected = {key for key, at in model.items() if at <= now}
    assert sorted(taken) == sorted(expected)
    assert [model[key] for key in taken] == sorted(model[key] for key in expected)
    left = [Instant(at) for key, at in model.items() if key not in expected]
    assert agenda.next_at() == min(left, default=None)
