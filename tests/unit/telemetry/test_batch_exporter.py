"""A caller never waits; lost items are counted, and logged once a streak."""

import threading

import pytest
from structlog.testing import capture_logs

from reconciler.telemetry.batch_exporter import FULL, BatchExporter, ExporterStats

LIMIT_S = 20.0


class Collector:
    """A receiver that blocks until `release`, and then returns the given answers."""

    def __init__(self, *answers: bool | Exception) -> None:
        self.answers = list(answers)
        self.batches: list[list[int]] = []
        self.reached = threading.Event()
        self.release = threading.Event()
        self.problem = ""
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()

    def __call__(self, batch: list[int]) -> bool:
        self.reached.set()
        assert self.release.wait(LIMIT_S)
        self.batches.append(batch)
        answer = self.answers.pop(0) if self.answers else True
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_all_that_was_given_arrives_in_order_in_batches() -> None:
    collector = Collector()
    collector.release.set()
    exporter = BatchExporter("traces", collector, batch=10, delay_s=LIMIT_S)
    assert all(exporter.enqueue(number) for number in range(25))
    exporter.close(LIMIT_S)
    assert [item for batch in collector.batches for item in batch] == list(range(25))
    assert max(map(len, collector.batches)) <= 10
    assert exporter.stats() == ExporterStats(sent=25, failed=0, dropped=0, queued=0)


def test_a_slow_collector_costs_only_what_does_not_fit() -> None:
    collector = Collector()
    exporter = BatchExporter("traces", collector, capacity=8, batch=4, delay_s=0.001)
    exporter.enqueue(0)
    assert collector.reached.wait(LIMIT_S)  # the thread hangs in it with that one
    taken = [exporter.enqueue(number) for number in range(1, 21)]
    assert taken == [True] * 8 + [False] * 12
    assert exporter.stats().dropped == 12
    collector.release.set()
    exporter.close(LIMIT_S)
    assert exporter.stats() == ExporterStats(sent=9, failed=0, dropped=12, queued=0)


def test_a_collector_that_hangs_does_not_hold_up_the_end() -> None:
    collector = Collector()
    exporter = BatchExporter("traces", collector, delay_s=0.001)
    exporter.enqueue(0)
    assert collector.reached.wait(LIMIT_S)
    exporter.enqueue(1)
    with capture_logs() as logs:
        exporter.close(0.01)
    assert exporter.stats().dropped == 2
    assert [line["items"] for line in logs] == [2]
    assert not exporter.enqueue(2)
    collector.release.set()
    assert collector.closed.wait(LIMIT_S)
    assert exporter.stats() == ExporterStats(sent=0, failed=0, dropped=3, queued=0)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (False, "the collector did not take it"),
        (RuntimeError("obviously-fake-secret"), "RuntimeError"),
    ],
    ids=["refused", "defect"],
)
def test_what_is_not_delivered_is_said_once_and_its_end_too(
    answer: bool | Exception, why: str
) -> None:
    collector = Collector(answer, answer, True)
    collector.release.set()
    with capture_logs() as logs:
        exporter = BatchExporter("traces", collector, batch=1, delay_s=LIMIT_S)
        for number in range(3):
            exporter.enqueue(number)
        exporter.close(LIMIT_S)
    assert [line["event"] for line in logs] == [
        "telemetry_export_failed", "telemetry_export_recovered",
    ]  # fmt: skip
    assert logs[0]["reason"] == why
    assert "obviously-fake-secret" not in str(logs)
    assert exporter.stats() == ExporterStats(sent=1, failed=2, dropped=0, queued=0)


class Stepped(Collector):
    """A receiver that takes a batch at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Semaphore(0)
        self.steps = threading.Semaphore(0)

    def __call__(self, batch: list[int]) -> bool:
        self.begun.release()
        assert self.steps.acquire(timeout=LIMIT_S)
        return True


def test_the_first_dropped_item_is_said_and_the_loss_lasts_while_items_are_dropped() -> None:
    collector = Stepped()
    with capture_logs() as logs:
        exporter = BatchExporter("traces", collector, capacity=2, batch=2, delay_s=0.001)
        exporter.enqueue(0)
        assert collector.begun.acquire(timeout=LIMIT_S)
        for number in range(1, 11):
            exporter.enqueue(number)
        [said] = logs
        collector.steps.release()
        # A batch that was being sent while items were dropped ends no streak; the next one does.
        assert collector.begun.acquire(timeout=LIMIT_S)
        assert len(logs) == 1
        collector.steps.release()
        exporter.close(LIMIT_S)
    assert (said["event"], said["log_level"], said["reason"]) == (
        "telemetry_export_failed", "warning", FULL,
    )  # fmt: skip
    assert exporter.stats() == ExporterStats(sent=3, failed=0, dropped=8, queued=0)
    assert [line["event"] for line in logs[1:]] == ["telemetry_export_recovered"]


def test_a_collector_that_takes_every_other_batch_is_said_once_a_minute() -> None:
    collector = Collector(*[False, True] * 20)
    collector.release.set()
    with capture_logs() as logs:
        exporter = BatchExporter("traces", collector, batch=1, delay_s=LIMIT_S)
        for number in range(40):
            exporter.enqueue(number)
        exporter.close(LIMIT_S)
    assert [line["event"] for line in logs] == [
        "telemetry_export_failed", "telemetry_export_recovered",
    ]  # fmt: skip
    assert exporter.stats() == ExporterStats(sent=20, failed=20, dropped=0, queued=0)


def test_what_is_left_at_the_end_is_said_and_the_sender_is_closed_after_its_last_batch() -> None:
    collector = Collector()
    with capture_logs() as logs:
        exporter = BatchExporter("metrics", collector, delay_s=0.001)
        exporter.enqueue(0)
        assert collector.reached.wait(LIMIT_S)
        exporter.enqueue(1)
        exporter.enqueue(2)
        exporter.close(0.01)
    assert [(line["event"], line["items"]) for line in logs] == [("telemetry_export_failed", 3)]
    assert not collector.closed.is_set()
    collector.release.set()
    assert collector.closed.wait(LIMIT_S)
    assert collector.batches == [[0]]


def test_the_words_for_a_loss_are_the_senders() -> None:
    collector = Collector(False)
    collector.problem = "the collector answered 302"
    collector.release.set()
    with capture_logs() as logs:
        exporter = BatchExporter("traces", collector, batch=1, delay_s=LIMIT_S)
        exporter.enqueue(0)
        exporter.close(LIMIT_S)
    assert [line["reason"] for line in logs] == ["the collector answered 302"]


def test_without_items_there_is_no_thread() -> None:
    before = threading.active_count()
    exporter = BatchExporter("traces", Collector())
    assert threading.active_count() == before
    exporter.close(LIMIT_S)
