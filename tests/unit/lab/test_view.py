"""The live view at any size, the progress lines, and the result of the report."""

import json
from io import StringIO

import pytest
from rich.console import Console
from rich.text import Text

from reconciler.lab.apiserver.write_log import WriteLog
from reconciler.lab.chaos.schedule import ScheduledFault
from reconciler.lab.cli.demo import LogTail, readable
from reconciler.lab.cluster.replicas import Tally
from reconciler.lab.demo.frame import Bar, Frame, progress_line
from reconciler.lab.demo.report import MEANINGS, Report, describe_fault, make_report
from reconciler.lab.demo.view import draw, draw_report
from reconciler.lab.fault_catalogue import Fault
from reconciler.lab.runners.exposure_ledger import FleetReport

LOG = [Text(f" line {number} " + "x" * 300) for number in range(50)]


def frame(*bars: Bar, expired_s: float = 0.0) -> Frame:
    return Frame(
        elapsed_s=12.0,
        duration_s=60.0,
        ttl_s=20.0,
        expired_s=expired_s,
        unauthenticated=0,
        reauthentications=3,
        calls=99,
        refreshes=40,
        failures=0,
        bars=bars,
        controllers=("reconciler-1 (pid 7, up 12 s): " + "steady " * 30,),
        page_url="http://127.0.0.1:1/",
        chaos=("issuer-outage@10+9",),
        waiting=("restart-all@20",),
    )


def many(count: int) -> list[Bar]:
    return [Bar(f"s{number:04d}", "running", 20.0 * number / count) for number in range(count)]


@pytest.mark.parametrize("size", [(80, 24), (160, 48), (120, 12), (40, 10), (20, 5), (300, 80)])
@pytest.mark.parametrize("sessions", [0, 1, 20, 50, 1000])
def test_it_fills_the_terminal_and_no_more(size: tuple[int, int], sessions: int) -> None:
    width, height = size

    lines = draw(frame(*many(sessions)), LOG, width=width, height=height).split("\n")

    assert len(lines) == height
    assert max(line.cell_len for line in lines) <= width


@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
def test_the_shortest_lives_are_shown_and_the_others_counted(size: tuple[int, int]) -> None:
    bars = many(1000)

    shown = draw(frame(*reversed(bars)), LOG, width=size[0], height=size[1]).plain

    names = [bar.name for bar in bars if bar.name in shown]
    assert names == [bar.name for bar in bars[: len(names)]]
    assert f"+{1000 - len(names)} more" in shown


def test_an_expired_token_and_a_session_without_a_runner_are_named() -> None:
    dead, waiting = Bar("dead", "running", -1.0), Bar("waits", "pending", None)

    shown = draw(frame(waiting, dead, expired_s=1.04), [], width=80, height=24).plain

    assert shown.index("EXPIRED") < shown.index("pending")
    assert "expired-token seconds 1.0 " in progress_line(frame(dead, expired_s=1.04))


def test_a_log_line_is_made_readable_and_any_other_is_left() -> None:
    line = {"timestamp": "2026-01-01T00:00:00Z", "level": "info", "event": "listed", "objects": 8}
    tail = LogTail()
    tail.write(f"{json.dumps(line)}\nTraceback\n\n")

    assert [text.plain[9:] for text in tail.lines] == [" listed objects=8", "k"]
    assert readable("[1]").plain == " [1]"


@pytest.mark.parametrize(
    ("expired_s", "unauthenticated", "tokens", "good"),
    [(0.0, 0, 0, True), (0.0001, 0, 0, False), (0.0, 1, 0, False), (0.0, 0, 1, False)],
)
def test_only_a_run_without_any_exposure_is_good(
    expired_s: float, unauthenticated: int, tokens: int, good: bool
) -> None:
    assert report_of(expired_s, unauthenticated, tokens).is_good is good


def test_the_slowest_startup_resync_is_the_one_that_is_reported() -> None:
    tally = Tally()
    for sessions, seconds in ((8, 0.5), (9, 0.2)):
        tally.add({"event": "startup_resync_finished", "sessions": sessions, "seconds": seconds})
    tally.add({"event": "runner_token_refreshed", "lateness_seconds": 0.25})

    assert (tally.resync_sessions, tally.resync_s) == (8, 0.5)
    assert tally.refreshes == 1


def test_failures_are_those_of_every_process_by_its_last_metrics() -> None:
    tally = Tally()
    other = 'token_reconciler_refreshes_total{reason="scheduled",result="success"} 9.0\n'
    counter = 'token_reconciler_refreshes_total{reason="scheduled",result="failure"} '
    for process, value in (("first", 3), ("first", 5), ("second", 2), ("second", 0)):
        tally.add_metrics(f"{other}{counter}{value}.0\n", process)

    assert tally.failures == 7


def test_each_figure_of_the_report_has_its_meaning() -> None:
    console = Console(width=300, record=True, file=StringIO())
    console.print(draw_report(report_of(0.0, 0, 0)))
    lines = console.export_text().splitlines()

    named = {
        line.split("│")[1].strip(): line.split("│")[3].strip() for line in lines if "│" in line
    }
    assert {name: text for name, text in named.items() if name} == MEANINGS
    assert lines[-1].strip() == "passed: no runner held an expired token"


def report_of(expired_s: float, unauthenticated: int, tokens: int) -> Report:
    fleet = FleetReport(expired_s, unauthenticated, 0, 0, 0, (), None)
    fault = ScheduledFault(Fault.FORGED_POD, 2.0, 0.0)
    entry = describe_fault(fault, elapsed_s=9.0, forged=["f"], tokens=tokens)
    return make_report(
        fleet,
        Tally(),
        WriteLog(),
        sessions=1,
        replicas=1,
        ttl_s=20.0,
        lease_s=3,
        losses_at=[],
        duration_s=9.0,
        chaos=[entry],
    )
