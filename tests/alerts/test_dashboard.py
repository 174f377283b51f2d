"""The dashboard is one that Grafana can show: whole, laid out, asking only for what is exported."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from reconciler.telemetry import metrics
from tests.alerts.dashboard import (
    Panel,
    annotations,
    dashboard,
    everything,
    filled,
    panels,
    queries,
)
from tests.alerts.rules import DASHBOARD, FOLDER, aggregations, promtool, unknown
from tests.cluster.conftest import require

COLUMNS = 24

LEFT_OUT = "required field is missing from input"
LIMIT_S = 30.0


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"].replace(" ", "_"))
def test_a_panel_says_what_it_shows_and_asks_for_what_is_exported(panel: Panel) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"]["uid"] == "${datasource}"
    ids = [target["refId"] for target in panel["targets"]]
    assert len(ids) == len(set(ids)) > 0
    for target in panel["targets"]:
        assert unknown(target["expr"]) == []
        assert _unscoped(target["expr"]) == []


@pytest.mark.parametrize("annotation", annotations(), ids=lambda each: each["name"])
def test_an_annotation_asks_for_what_is_exported(annotation: Panel) -> None:
    assert unknown(annotation["expr"]) == []
    assert _unscoped(annotation["expr"]) == []
    assert annotation["datasource"]["uid"] == "${datasource}"
    (kept,) = aggregations(annotation["expr"])
    shown = re.findall(r"{{(\w+)}}", annotation["titleFormat"])
    assert {*shown, *annotation["tagKeys"].split(",")} == kept


def test_leader_changes_and_outages_are_annotated() -> None:
    assert {each["name"] for each in annotations()} == {"Leader changes", "Outages", "Refusals"}


def _unscoped(expression: str) -> list[str]:
    """Return the metrics of which series of other clusters or namespaces are selected, too."""
    scope = '{cluster=~"$cluster", namespace="$namespace"'
    found = re.findall(rf"({metrics.PREFIX}\w+)(.{{{len(scope)}}})", expression)
    return [name for name, matchers in found if matchers != scope]


def test_promtool_takes_every_query(tmp_path: Path) -> None:
    expressions = [query for panel in panels() for query in queries(panel)]
    expressions += [filled(annotation["expr"]) for annotation in annotations()]
    assert not [expression for expression in expressions if "$" in expression]
    path = tmp_path / "rules.yml"
    rules = [{"record": f"panel:{n}", "expr": each} for n, each in enumerate(expressions)]
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = promtool("check", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in everything():
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= COLUMNS
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]
    numbers = [panel["id"] for panel in everything()]
    assert len(numbers) == len(set(numbers))


def test_every_panel_stands_below_a_row() -> None:
    shown = sorted(everything(), key=lambda each: (each["gridPos"]["y"], each["gridPos"]["x"]))
    assert shown[0]["type"] == "row"
    assert len({each["title"] for each in shown if each["type"] == "row"}) == 3
    assert all(each["gridPos"]["w"] == COLUMNS for each in shown if each["type"] == "row")


def test_grafanas_schema_has_every_field_of_the_dashboard(tmp_path: Path) -> None:
    """Fields that are left out are no fault: Grafana fills them in when it loads a dashboard."""

    def faults(text: str) -> list[str]:
        path = tmp_path / "dashboard.json"
        path.write_text(text)
        program = require("dashboard-schema")["dashboard-schema"]
        done = subprocess.run(
            [program, str(path)], capture_output=True, text=True, timeout=LIMIT_S, check=True
        )
        return [line for line in done.stdout.splitlines() if not line.endswith(LEFT_OUT)]

    text = DASHBOARD.read_text()
    assert faults(text) == []
    assert faults(text.replace('"expr"', '"query"', 1)) == [
        "annotations.list[0].AnnotationQuery: unexpected field 'query'"
    ]
    [fault] = faults(text.replace('"w": 24', '"w": "24"', 1))
    assert fault.startswith("panels[0].gridPos.w: json: cannot unmarshal string")


def test_every_variable_is_declared() -> None:
    declared = {variable["name"] for variable in dashboard()["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", DASHBOARD.read_text()))
    assert used == declared


def test_the_component_holds_every_file_of_its_folder() -> None:
    made = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    files = made["resources"] + [
        each.partition("=")[2] for each in made["configMapGenerator"][0]["files"]
    ]
    assert {*files, "kustomization.yaml"} == {path.name for path in FOLDER.iterdir()}
