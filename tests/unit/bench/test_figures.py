"""What `make bench` computes: ratios, quantiles, targets, /proc, and what it prints of them."""

import doctest
import math
import os
from pathlib import Path

import pytest
from rich.console import Console

from tests.bench import components, figures, fleet, procfs
from tests.bench import plan as plan_module
from tests.bench import report as report_module
from tests.bench.components import PACKAGE, component
from tests.bench.figures import BY_NAME, FIGURES, Target, Value, growth, quantile, ratio
from tests.bench.plan import plan
from tests.bench.plots import draw
from tests.bench.report import PartRun, Report, load, number, save, table, to_json


def report(*values: Value) -> Report:
    found = Report()
    found.add(PartRun("resync, 1,000 sessions", 12.5, 1.25), values)
    return found


def printed(found: Report) -> str:
    console = Console(width=140)
    with console.capture() as capture:
        console.print(table(found))
    return capture.get()


def row(found: Report, name: str) -> list[str]:
    """Return the words of a figure's row."""
    [line] = [line for line in printed(found).splitlines() if line.split()[:1] == [name]]
    return line.split()


def test_each_figure_has_one_definition() -> None:
    assert len(BY_NAME) == len(FIGURES)


@pytest.mark.parametrize(
    ("target", "met", "missed"),
    [
        pytest.param(Target(1.6), 1.6, 1.601, id="at-most"),
        pytest.param(Target(0.9, at_least=True), 0.9, 0.899, id="at-least"),
    ],
)
def test_a_target_is_met_up_to_its_limit(target: Target, met: float, missed: float) -> None:
    assert target.is_met(met)
    assert not target.is_met(missed)
    assert not target.is_met(math.nan)


def test_a_ratio_without_a_denominator_is_no_number() -> None:
    assert ratio(3.0, 2.0) == 1.5
    assert math.isnan(ratio(3.0, 0.0))


def test_quantiles_are_values_that_were_measured() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [quantile(values, share) for share in (0.0, 0.2, 0.5, 0.99, 1.0)] == [1, 1, 3, 5, 5]
    assert math.isnan(quantile([], 0.5))


def test_growth_compares_the_most_sessions_with_the_fewest() -> None:
    values = [
        Value("cpu_ms", cost, size) for size, cost in ((10_000, 1.5), (1000, 1.0), (200, 2.0))
    ]
    assert growth(values) == [Value("cpu_growth", 0.75)]
    assert growth(values[:1]) == []


def test_a_process_used_cpu_and_memory() -> None:
    pid = os.getpid()
    sum(range(1_000_000))
    assert procfs.cpu_s(pid) > 0
    assert 0 < procfs.rss_mb(pid) <= procfs.peak_mb(pid)


def test_a_status_without_the_field_is_an_error() -> None:
    with pytest.raises(ValueError, match="not enough values"):
        procfs.parse_mb("Name:\tzombie\n", "VmRSS")


def test_samples_are_summed_over_labels() -> None:
    text = '# TYPE x counter\ntoken_x_total 2.0\ntoken_y{a="b c"} 3.0\ntoken_y{a="d"} 4.0\n'
    assert fleet.samples(text) == {"token_x_total": 2.0, "token_y": 7.0}


def test_a_row_has_the_figure_beside_its_target() -> None:
    found = report(Value("cpu_vs_bare", 3.98, 1000), Value("cpu_vs_bare", 1.2, 10_000))
    assert row(found, "cpu_vs_bare") == ["cpu_vs_bare", "3.98", "1.2", "<=", "1.6", "NO", "yes"]


def test_a_number_of_sessions_without_a_target_gets_no_verdict() -> None:
    found = report(Value("rss_mb", 80.0, 1000), Value("rss_mb", 131.2, 10_000))
    assert row(found, "rss_mb") == ["rss_mb", "80", "131", "MB", "<=", "100", "-", "NO"]


def test_a_figure_that_could_not_be_computed_is_shown_and_misses() -> None:
    found = report(Value("cpu_vs_go", math.nan, 1000))
    assert row(found, "cpu_vs_go") == ["cpu_vs_go", "?", "<=", "1", "NO"]
    record = to_json(found)["figures"]["cpu_vs_go_1000"]
    assert (record["value"], record["met"]) == (None, False)


def test_the_report_has_one_key_a_number_with_its_target() -> None:
    found = to_json(report(Value("cpu_vs_bare", 3.98, 1000), Value("cpu_ms", 1.111111, 1000)))
    assert found["figures"]["cpu_vs_bare_1000"] == {
        "value": 3.98, "unit": "", "target": "<= 1.6", "met": False,
        "figure": "cpu_vs_bare", "sessions": 1000, "component": "",
    }  # fmt: skip
    assert found["figures"]["cpu_ms_1000"]["value"] == 1.111
    assert found["figures"]["cpu_ms_1000"]["target"] is None
    assert found["seconds"] == 12.5


def test_a_part_that_runs_again_keeps_the_others(tmp_path: Path) -> None:
    path = tmp_path / "build" / "bench.json"
    found = report(Value("cpu_ms", 1.0, 1000), Value("rate", 500.0, 1000))
    found.add(PartRun("failover", 2.0, 1.0, failure="OSError: no"), ())
    save(found, path)
    again = load(path)
    assert [run.part for run in again.failures] == ["failover"]
    again.add(PartRun("failover", 3.0, 1.0), [Value("failover_rounds", 2)])
    again.add(PartRun("resync, 1,000 sessions", 1.0, 1.0), [Value("cpu_ms", 0.9, 1000)])
    save(again, path)
    last = load(path)
    assert {key: value.value for key, value in last.values.items()} == {
        "cpu_ms_1000": 0.9, "rate_1000": 500.0, "failover_rounds": 2,
    }  # fmt: skip
    assert (last.failures, last.seconds) == ([], 4.0)


def test_no_report_is_an_empty_one(tmp_path: Path) -> None:
    assert load(tmp_path / "bench.json") == Report()


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (0.01234, "0.0123"), (1.604, "1.6"), (98.76, "98.8"), (12345.6, "12,346")],
)
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert number(value) == shown


def test_a_quick_run_measures_less_of_everything() -> None:
    whole, quick = plan(quick=False), plan(quick=True)
    assert whole.sizes == (1000, 10_000)
    assert plan(quick=False, sessions=100_000).sizes == (1000, 10_000, 100_000)
    assert plan(quick=False, sessions=1000).sizes == (1000,)
    assert max(quick.sizes) <= min(whole.sizes)
    assert (quick.rounds(1000), whole.rounds(1000), whole.rounds(10_000)) == (1, 5, 3)


def test_pictures_show_what_was_measured_and_load_nothing(tmp_path: Path) -> None:
    found = report(
        Value("cpu_ms", 1.1, 1000), Value("bare_cpu_ms", 0.4, 1000), Value("cpu_ms", 1.3, 10_000)
    )
    [path] = draw(found, tmp_path)
    picture = path.read_text()
    assert path.name == "cpu.svg"
    assert all(text in picture for text in ("product", "bare client", "10,000 sessions", "1.3"))
    assert "<script xlink" not in picture
    assert "@import" not in picture


@pytest.mark.parametrize(
    ("files", "name"),
    [
        pytest.param(["/lib/ssl.py", "informer/store.py", "entry.py"], "informer", id="innermost"),
        pytest.param(["controller/state/sessions.py"], "controller_state", id="divided"),
        pytest.param(["controller/controller.py"], "controller_controller", id="a-file-of-it"),
        pytest.param(["clock.py"], "clock", id="module"),
        pytest.param(["/lib/ssl.py"], "other", id="library"),
        pytest.param([], "other", id="nothing"),
    ],
)
def test_a_stack_belongs_to_its_innermost_part_of_the_product(files: list[str], name: str) -> None:
    paths = [file if file.startswith("/") else str(PACKAGE / file) for file in files]
    assert component(paths) == name


def test_the_examples_of_the_bench_run() -> None:
    for module in (components, figures, fleet, plan_module, procfs, report_module):
        result = doctest.testmod(module)
        assert (result.failed, result.attempted > 0) == (0, True)
