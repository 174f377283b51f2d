"""The lazy heap: order, moves, and how many stale slots it tolerates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.workqueue.heap import MIN_STALE_SLOTS, LazyHeap


def drained(heap: LazyHeap[float, str]) -> list[str]:
    return [heap.pop()[1] for _ in range(len(heap))]


def test_items_come_by_rank_and_equal_ranks_in_the_order_of_their_pushes() -> None:
    heap: LazyHeap[float, str] = LazyHeap()
    for item, rank in [("late", 9.0), ("b", 5.0), ("a", 5.0), ("first", -1.0)]:
        heap.push(item, rank=rank)
    assert drained(heap) == ["first", "b", "a", "late"]


def test_a_moved_item_is_found_only_where_it_went() -> None:
    heap: LazyHeap[float, str] = LazyHeap()
    heap.push("a", rank=1.0)
    heap.push("b", rank=2.0)
    heap.push("a", rank=3.0)
    assert drained(heap) == ["b", "a"]
    assert heap.peek() is None


def test_a_discarded_item_never_surfaces_and_an_unknown_one_is_no_error() -> None:
    heap: LazyHeap[float, str] = LazyHeap()
    heap.push("a", rank=1.0)
    heap.push("b", rank=2.0)
    heap.discard("a")
    heap.discard("never held")
    assert heap.peek() == (2.0, "b")
    assert repr(heap) == "<LazyHeap 1 live in 1 slots>"


def test_an_empty_heap_has_nothing_to_pop() -> None:
    with pytest.raises(IndexError):
        LazyHeap[float, str]().pop()


@given(st.lists(st.tuples(st.integers(0, 9), st.none() | st.integers(0, 99)), max_size=300))
def test_it_agrees_with_a_sorted_dict_and_never_holds_more_stale_than_live(
    moves: list[tuple[int, int | None]],
) -> None:
    heap: LazyHeap[float, int] = LazyHeap()
    model: dict[int, int] = {}
    for item, rank in moves:
        if rank is None:
            heap.discard(item)
            model.pop(item, None)
        else:
            heap.push(item, rank=rank)
            model[item] = rank
        head = heap.peek()
        assert (head[0] if head else None) == min(model.values(), default=None)
        assert len(heap) == len(model)
        assert heap.slots <= 2 * len(heap) + MIN_STALE_SLOTS
