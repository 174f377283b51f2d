"""README's table of one run: every number with a target, beside that target."""

import doctest
from pathlib import Path

import pytest

from tests.bench import readme as readme_module
from tests.bench.figures import BY_NAME, FIGURES, Value
from tests.bench.readme import section, with_section
from tests.bench.report import PartRun, Report
from tests.unit.test_documents import ROOT, table_rows

SIZES = (1000, 10_000)
RUN = "Commit 0123456, two cores"


def whole(number: float) -> Report:
    """Return a report with this number for every figure and number of sessions."""
    report = Report()
    values = [Value(figure.name, number, size) for figure in FIGURES for size in SIZES]
    report.add(PartRun("resync", 1.0, 1.0), values)
    return report


def differences(readme: Path) -> list[str]:
    """Return what the table of README lacks, or has with other targets than the figures."""
    rows = {row[0].strip("`"): row for row in table_rows(readme, "figure")}
    expected = {
        figure.name for figure in FIGURES if any(figure.target(size) for size in (0, *SIZES))
    }
    found = [f"no {name}" for name in sorted(expected - rows.keys())] if rows else []
    for name, (*_, shown, _) in rows.items():
        targets = BY_NAME[name].targets
        known = {f"{size:,}: {target}" for size, target in targets.items()}
        known |= {str(target) for target in targets.values()}
        found += [f"{name} {each}" for each in shown.split("; ") if each not in known]
    return found


def test_readme_has_all_targets_as_they_are_now() -> None:
    assert differences(ROOT / "README.md") == []


def test_a_written_section_has_every_target_and_verdict(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    text = (ROOT / "README.md").read_text()
    path.write_text(with_section(text, section(whole(1.0), RUN)))
    assert differences(path) == []
    rows = {row[0].strip("`"): row[1:] for row in table_rows(path, "figure")}
    assert rows["cpu_vs_bare"] == ["", "1", "1", "", "<= 1.6", "yes"]
    assert rows["storm_changes_rate"] == ["", "1", "1", "/s", ">= 5000", "NO"]
    assert rows["first_refresh_s"] == ["", "1", "1", "s", "1,000: <= 0.5; 10,000: <= 1", "NO yes"]
    assert "cpu_ms" not in rows
    written = path.read_text()
    assert RUN in written
    assert with_section(written, section(whole(1.0), RUN)) == written
    path.write_text(written.replace("<= 1.6", "<= 1.7").replace("| `cpu_growth` |", "| `rate` |"))
    assert differences(path) == ["no cpu_growth", "cpu_vs_bare <= 1.7", "rate <= 1.2"]


def test_a_report_without_targets_is_refused_and_so_is_another_readme() -> None:
    with pytest.raises(ValueError, match="make bench"):
        section(Report(), RUN)
    with pytest.raises(ValueError, match="Where to read on"):
        with_section("# Another\n", "## Measured\n")


def test_the_examples_run() -> None:
    assert doctest.testmod(readme_module).failed == 0
