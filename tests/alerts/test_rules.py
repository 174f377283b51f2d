"""Every alert fires when it should, alone, and is quiet when it should be: promtool's verdict."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler import errors
from reconciler.statuspage import summary
from tests.alerts.cases import CASES, STEP_S, Case
from tests.alerts.rules import (
    ROOT,
    RUNBOOKS,
    Rule,
    aggregations,
    alerts,
    promtool,
    rules,
    unknown,
    write_rules,
)

FIRING = 'count by (alertname) (ALERTS{alertstate="firing"})'


def test_promtool_takes_the_rules(tmp_path: Path) -> None:
    done = promtool("check", "rules", str(write_rules(tmp_path / "rules.yml")))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules())} rules found" in done.stdout


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "_"))
def test_an_alert_fires_when_it_should_and_no_other_does(case: Case, tmp_path: Path) -> None:
    write_rules(tmp_path / "rules.yml")
    test = tmp_path / "test.yml"
    test.write_text(yaml.safe_dump(_as_promtool_has_it(case)))
    done = promtool("test", "rules", str(test))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_every_alert_has_a_case_that_fires_and_one_that_does_not(alert: Rule) -> None:
    of_it = [case for case in CASES if case.alert == alert["alert"]]
    assert any(case.quiet and case.firing for case in of_it)
    assert any(not case.firing for case in of_it)


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_every_alert_says_how_bad_it_is_what_to_do_and_where_to_read_on(alert: Rule) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    notes = alert["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    assert len(notes["summary"]) < 100
    assert re.match(r"[A-Z{]", notes["summary"])
    assert notes["description"].endswith((".", "report it."))
    file, _, anchor = notes["runbook_url"].partition("#")
    assert file == RUNBOOKS
    assert anchor == alert["alert"].lower()


def test_every_alert_has_its_section_and_every_section_its_alert() -> None:
    text = (ROOT / RUNBOOKS).read_text()
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    titles = [section.split("\n", 1)[0] for section in sections]
    assert titles == [alert["alert"] for alert in alerts()]
    for section in sections:
        for part in ("**For runners**", "**See it**", "**Do**", "**Over when**"):
            assert section.count(part) == 1, f"{section.splitlines()[0]}: {part}"
        assert unknown(section) == []


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_every_rule_asks_for_what_is_exported(rule: Rule) -> None:
    assert unknown(rule["expr"]) == []


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_no_rule_mixes_clusters(rule: Rule) -> None:
    """An aggregation or a match without `cluster` joins series of different clusters."""
    plain = re.findall(r"\b(?:max|min|sum|count|avg|group) ?\(", rule["expr"])
    assert plain == []
    assert all("cluster" in labels for labels in aggregations(rule["expr"]))


def test_a_metric_or_a_label_that_is_not_exported_is_found() -> None:
    assert unknown("token_reconciler_nonsense > 0") == ["token_reconciler_nonsense"]
    assert unknown('token_reconciler_leader{pod="x"}') == ["token_reconciler_leader{pod}"]
    assert unknown("token_reconciler_lateness_seconds") == ["token_reconciler_lateness_seconds"]
    assert unknown('token_reconciler_lateness_seconds_bucket{priority="new", le="1"}') == []


def _as_promtool_has_it(case: Case) -> dict[str, Any]:
    """Say what fires at each instant; a case without any is looked at every half minute."""
    if case.firing:
        expected = {case.quiet: "", case.firing: case.alert, case.over: ""}
    else:
        expected = {f"{number * STEP_S}s": "" for number in range(40)}
    return {
        "rule_files": ["rules.yml"],
        "evaluation_interval": f"{STEP_S}s",
        "tests": [
            {
                "name": case.name,
                "interval": f"{STEP_S}s",
                "input_series": [
                    {"series": name, "values": values} for name, values in case.series.items()
                ],
                "promql_expr_test": [
                    {
                        "expr": FIRING,
                        "eval_time": instant,
                        "exp_samples": [{"labels": f'{{alertname="{fires}"}}', "value": 1}]
                        if fires
                        else [],
                    }
                    for instant, fires in expected.items()
                    if instant
                ],
            }
        ],
    }


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_every_class_of_error_that_a_rule_leaves_out_exists(rule: Rule) -> None:
    """A renamed class would count as a failure again, without a sign of it."""
    named = {
        word for part in re.findall(r'result!~"([^"]+)"', rule["expr"]) for word in part.split("|")
    }
    known = {name for name, found in vars(errors).items() if isinstance(found, type)}
    assert named - known == named & {"success", "CancelledError"}


def test_the_page_has_the_thresholds_of_the_alerts() -> None:
    def threshold(alert: str, pattern: str) -> float:
        [expression] = [rule["expr"] for rule in alerts() if rule["alert"] == alert]
        [found] = re.findall(pattern, expression)
        return float(found)

    survival = threshold("TokenReconcilerFleetSurvivalLow", r"< ([\d.]+) \* cluster_job_namespace")
    overdue_s = threshold("TokenReconcilerOverdue", r"longest_overdue_seconds > ([\d.]+)")
    assert (survival, overdue_s) == (summary.SHORT_SURVIVAL, summary.OVERDUE_S)


def test_the_page_links_to_runbooks_of_alerts_that_exist() -> None:
    named = set(re.findall(r'"(TokenReconciler\w+)"', Path(summary.__file__).read_text()))
    assert len(named) > 5
    assert named <= {alert["alert"] for alert in alerts()}
