"""`make bench` with a handful of sessions: every part runs and measures what the documents name."""

from pathlib import Path

import pytest

from tests.bench import parts
from tests.bench.figures import FIGURES
from tests.bench.plan import Plan
from tests.bench.report import Report, load, table
from tests.bench.runner import Runner
from tests.cluster.conftest import require

pytestmark = pytest.mark.cluster

TINY = Plan(
    sizes=(8, 16), steady_rate=4.0, steady_s=2.0, failovers=1, idle_s=1.0,
    storm_sessions=20, storm_s=1.0, telemetry_sessions=40,
    renews=False,
)  # fmt: skip

NOT_HERE = {"renewing_cpu_percent"}
"""It waits for 15-minute tokens to be refreshed."""


@pytest.mark.shows_secrets("a server of the bench prints its client's secret for the bench")
@pytest.mark.timeout(900)
def test_every_figure_is_measured(tmp_path: Path) -> None:
    report, path = Report(), tmp_path / "bench.json"
    Runner(require(*parts.PROGRAMS), TINY, parts.NAMES, report=report, path=path).run()
    assert [(run.part, run.failure) for run in report.failures] == []
    measured = {value.name for value in report.values.values()}
    assert {figure.name for figure in FIGURES} - measured <= NOT_HERE
    assert load(path).parts.keys() == report.parts.keys()
    assert table(report).row_count >= len(measured)


def test_a_part_that_fails_is_reported_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(*_: object) -> list[object]:
        raise OSError("no such thing")

    async def work(*_: object) -> list[object]:
        return []

    broken = (parts.SinglePart("steady", fail), parts.SinglePart("failover", work))  # type: ignore[arg-type]
    monkeypatch.setattr(parts, "SINGLE_PARTS", broken)
    report = Report()
    binaries = require(*parts.PROGRAMS)
    names = ("steady", "failover")
    Runner(binaries, TINY, names, report=report, path=tmp_path / "bench.json").run()
    assert [run.part for run in report.parts.values()] == ["steady", "failover"]
    assert [run.failure for run in report.failures] == ["OSError: no such thing"]
    assert "no such thing" in capsys.readouterr().err
