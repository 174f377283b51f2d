"""What the documents name exists, and what the product shows to people is in the documents."""

import ast
import fnmatch
import re
from pathlib import Path

import pytest
import yaml
from typer.main import get_group

from reconciler.cli import exit_codes
from reconciler.cli.check import EXIT_FAILED
from reconciler.cli.main import app
from reconciler.controller.decide.block_reasons import BlockReason
from reconciler.controller.decide.token_state import TokenState
from reconciler.lab.fault_catalogue import DEMO_FAULTS
from reconciler.naming import Names
from reconciler.settings import Settings
from reconciler.telemetry import metrics
from tests.bench.figures import FIGURES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
RULES = "manifests/chart/files/alerts/rules.yaml"
DOCUMENTS = (
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *sorted(str(path.relative_to(ROOT)) for path in DOCS.rglob("*.md")),
)
TOP = ("README", "ARCHITECTURE", "CHANGELOG", "CONTRIBUTING", "SECURITY")
TABLES_OF_TESTS = {
    DOCS / "failures.md": ("fault", 130),
    DOCS / "conformance.md": ("upstream test", 50),
    DOCS / "upgrade.md": ("what the versions share", 5),
    ROOT / "SECURITY.md": ("threat", 15),
}
"""Document -> first heading of its tables with tests in the last column, and their least rows."""
DECISIONS = sorted((DOCS / "decisions").glob("*.md"))

PRODUCT = [
    path
    for path in sorted((ROOT / "reconciler").rglob("*.py"))
    if "lab" not in path.relative_to(ROOT).parts
]
SOURCE = "\n".join(path.read_text() for path in PRODUCT)

NAME = r"[a-z]+(?:_[a-z]+)+"

PAGE_LINES = 60
"""A decision is shorter than a page."""


def table_rows(document: Path, first_heading: str) -> list[list[str]]:
    """Return the cells of each row of the tables of which the first column has this heading."""
    rows: list[list[str]] = []
    is_inside = False
    for line in document.read_text().splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
        if not cells:
            is_inside = False
        elif cells[0] == first_heading:
            is_inside = True
        elif is_inside and not cells[0].startswith("---"):
            rows.append(cells)
    return rows


def events_in_the_table() -> set[str]:
    """Return the first column of the reference's tables of log events."""
    rows = table_rows(REFERENCE / "log-events.md", "log event")
    return {name for row in rows for name in re.findall(r"[a-z_]+", row[0])}


def is_said(name: str) -> bool:
    """Return whether the product's code has this name as a word of its own, in quotes."""
    return f'"{name}"' in SOURCE


def test_every_event_of_the_table_is_one_that_the_log_may_say() -> None:
    found = events_in_the_table()
    assert len(found) > 40
    assert {name for name in found if not is_said(name)} == set()


LOG_LEVELS = frozenset({"info", "warning", "error", "exception"})


def texts(node: ast.expr) -> set[str]:
    """Return the strings that an expression may be, as far as it shows them."""
    match node:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.IfExp(body=body, orelse=orelse):
            return texts(body) | texts(orelse)
    return set()


def logged_events() -> set[str]:
    """Return the events that the product's code passes to a log, `debug` apart."""
    calls = [
        node for path in PRODUCT for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]  # fmt: skip
    events = set()
    for call in calls:
        function = call.func
        assert isinstance(function, ast.Attribute)
        if function.attr in LOG_LEVELS and ast.unparse(function.value).endswith("log"):
            events |= texts(call.args[0])
    return events


def test_every_event_of_the_log_is_in_the_table() -> None:
    called = logged_events()
    assert len(called) > 40
    judged = re.findall(rf'(?:says|event)="({NAME})"', SOURCE)
    assert {*called, *judged} - events_in_the_table() == set()


RENAMED = table_rows(ROOT / "CHANGELOG.md", "before")


def test_a_renamed_log_event_or_metric_has_its_new_name_alone() -> None:
    exported = {metric.name.removeprefix(metrics.PREFIX) for metric in metrics.ALL}
    rows = [row for row in RENAMED if re.match(r"(log event|metric) `[a-z_]+`$", row[0])]
    assert len(rows) > 30
    for before, now in rows:
        [former], [current] = (re.findall(r"`([a-z_]+)`", cell) for cell in (before, now))
        if before.startswith("metric"):
            assert (former in exported, current in exported) == (False, True), former
        else:
            assert (is_said(former), is_said(current)) == (False, True), former


@pytest.mark.parametrize("document", [*DOCUMENTS, RULES])
def test_what_is_to_be_looked_for_in_the_log_can_be_found_there(document: str) -> None:
    text = (ROOT / document).read_text()
    if document == RULES:
        groups = yaml.safe_load(text)["spec"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        text = "\n".join(rule.get("annotations", {}).get("description", "") for rule in rules)
    sentences = [one for one in re.split(r"\.\s|\n\n|\|", text) if re.search(r"\blog\b", one)]
    named = {name for sentence in sentences for name in re.findall(NAME, sentence)}
    metric_names = {name for name in named if name.startswith("token_reconciler_")}
    assert {name for name in named - metric_names if name not in SOURCE} == set()


def test_the_reference_has_every_metric_with_its_type_unit_and_labels() -> None:
    documented = {
        name.strip("`"): (kind, unit, tuple(re.findall(r"\w+", labels)))
        for name, kind, unit, labels, _ in (
            row for row in table_rows(REFERENCE / "metrics.md", "metric") if len(row) == 5
        )
    }
    exported = {
        metric.name.removeprefix(metrics.PREFIX): (metric.kind, metric.unit, metric.labels)
        for metric in metrics.ALL
    }
    assert documented == exported


@pytest.mark.parametrize("document", [*DOCUMENTS, RULES])
def test_every_metric_that_is_named_exists(document: str) -> None:
    known = {metric.name for metric in metrics.ALL}
    suffixes = ("_bucket", "_count", "_sum")
    text = (ROOT / document).read_text()
    named = set(re.findall(rf"\b{metrics.PREFIX}[a-z_]+[a-z]\b", text))
    first = [row[0] for row in table_rows(ROOT / document, "metric")] if "docs" in document else []
    named |= {metrics.PREFIX + name for cell in first for name in re.findall(r"`([a-z_]+)", cell)}
    of_histograms = {name + suffix for name in known for suffix in suffixes}
    assert named - known - of_histograms == set()


def test_the_reference_has_every_setting_with_its_default() -> None:
    documented = {
        name: default.strip("`")
        for variables, default, _ in table_rows(REFERENCE / "settings.md", "variable")
        for name in re.findall(r"`([A-Z_]+)`", variables)
    }
    assert documented == {
        str(field.validation_alias): shown_default(str(field.validation_alias), field.default)
        for field in Settings.model_fields.values()
    }


def shown_default(variable: str, value: object) -> str:
    """Return a default as the reference writes it."""
    if variable == "RECONCILER_REPLICA":
        return "the host's name"
    if value in (None, "", []):
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize("document", [*DOCUMENTS, "CHANGELOG.md"])
def test_links_lead_to_files_and_headings_that_exist(document: str) -> None:
    path = ROOT / document
    text = path.read_text()
    links = re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text)
    missing = []
    for link in (markdown or html for markdown, html in links):
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.append(link)
    assert missing == []


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_a_document_that_the_code_names_is_in_the_repository() -> None:
    files = [*(ROOT / "reconciler").rglob("*.py"), *(ROOT / "manifests").rglob("*.yaml")]
    named = {
        name
        for file in files
        for name in re.findall(rf"(?:{'|'.join(TOP)}|\b[a-z][\w./-]*)\.md\b", file.read_text())
    }
    assert len(named) > 3
    assert {name for name in named if not (ROOT / name).exists()} == set()


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_has_context_decision_and_consequence_in_under_a_page(decision: Path) -> None:
    text = decision.read_text()
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["Context", "Decision", "Consequence"]
    assert text.count("\n") < PAGE_LINES
    assert re.match(r"# \d{4}: ", text)
    assert text[2:6] == decision.name[:4]


def test_decisions_are_numbered_without_a_gap() -> None:
    assert [int(path.name[:4]) for path in DECISIONS] == list(range(1, len(DECISIONS) + 1))


def named_tests() -> list[str]:
    """Return each test, file or folder that a document names in the last column of such a table."""
    rows = [
        row
        for document, (heading, _) in TABLES_OF_TESTS.items()
        for row in table_rows(document, heading)
    ]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row[2])]


def defined_tests(file: Path) -> set[str]:
    """Return the names of a test file: functions, classes, and `Class::method`."""
    names = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names.add(node.name)
            methods = (
                one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
            )
            names |= {f"{node.name}::{method.name}" for method in methods}
    return names


@pytest.mark.parametrize("name", sorted(set(named_tests())))
def test_a_test_that_a_document_names_exists(name: str) -> None:
    pattern, _, test = name.partition("::")
    files = sorted(ROOT.glob(pattern))
    assert files != []
    if test:
        assert fnmatch.filter(defined_tests(files[0]), test.replace("...", "*")) != []


@pytest.mark.parametrize("document", TABLES_OF_TESTS, ids=lambda path: path.stem)
def test_every_row_of_such_a_table_names_a_test(document: Path) -> None:
    heading, least = TABLES_OF_TESTS[document]
    rows = table_rows(document, heading)
    assert len(rows) > least
    assert [row[0] for row in rows if "`tests/" not in row[2]] == []


def test_the_conformance_table_has_each_number_once() -> None:
    document = DOCS / "conformance.md"
    rows = table_rows(document, "upstream test") + table_rows(document, "upstream behaviour")
    assert sorted(row[0].split()[0] for row in rows) == [f"T{n:02}" for n in range(1, 77)]


def test_a_module_that_the_architecture_names_exists() -> None:
    """A path is one below reconciler/ or the repository; a file name alone is one of any room."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    named = set(re.findall(r"`((?:[\w.]+/)*[\w.]*(?:\.py|/))`", text))
    names = {path.name for path in (ROOT / "reconciler").rglob("*.py")}
    missing = {
        name
        for name in named
        if not (ROOT / name).exists()
        and not (ROOT / "reconciler" / name).exists()
        and not (ROOT / "reconciler" / "lab" / name).exists()
        and name not in names
    }
    assert len(named) > 60
    assert missing == {"auth/"}


def rooms() -> set[str]:
    """Return the modules and packages of reconciler/, and the packages of its controller."""
    package = ROOT / "reconciler"
    modules = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    packages = [*package.glob("*/__init__.py"), *package.glob("controller/*/__init__.py")]
    return modules | {f"{path.parent.relative_to(package)}/" for path in packages}


def test_the_architecture_has_each_room_in_its_table_and_in_its_drawing() -> None:
    table = table_rows(ROOT / "ARCHITECTURE.md", "room")
    listed = [name for row in table for name in re.findall(r"`([^`]+)`", row[0])]
    assert sorted(listed) == sorted(rooms())
    text = (ROOT / "ARCHITECTURE.md").read_text().partition("## Rooms")[2]
    drawn = set(re.findall(r"[\w]+(?:\.py|/)", text.split("```")[1]))
    assert {re.sub("controller/(?=.)", "", name) for name in rooms()} - drawn == set()


def test_the_reference_has_every_annotation_that_is_decoded() -> None:
    documented = {
        row[0].strip("`") for row in table_rows(REFERENCE / "annotations.md", "annotation")
    }
    names = Names()
    assert documented == {one.removeprefix(f"{names.prefix}/") for one in names.annotations()}


def test_every_event_reason_that_the_reference_names_is_in_the_product() -> None:
    _, _, section = (REFERENCE / "log-events.md").read_text().partition("## Kubernetes Events")
    reasons = set(re.findall(r"`([A-Z][a-z]+[A-Z][A-Za-z]+)`", section))
    assert len(reasons) > 10
    assert {reason for reason in reasons if not is_said(reason)} == set()


@pytest.mark.parametrize(
    ("document", "heading", "name"),
    [("log-events", "log event", "session_blocked"), ("metrics", "metric", "sessions_blocked")],
)
def test_the_reference_has_every_reason_of_a_block(document: str, heading: str, name: str) -> None:
    rows = table_rows(REFERENCE / f"{document}.md", heading)
    [meaning] = [row[-1] for row in rows if row[0] == f"`{name}`"]
    assert set(re.findall(r"`([a-z_]+)`", meaning)) - {"reason"} == set(BlockReason)


def test_the_reference_has_every_state_and_exit_code() -> None:
    states = {
        name
        for row in table_rows(REFERENCE / "commands.md", "state")
        for name in re.findall(r"`(\w+)`", row[0])
    }
    assert states == {state.value for state in TokenState}
    codes = {int(row[0]) for row in table_rows(REFERENCE / "commands.md", "code")}
    defined = {value for name, value in vars(exit_codes).items() if name.startswith("EXIT_")}
    assert codes == {0, EXIT_FAILED} | defined


@pytest.mark.parametrize("document", DOCUMENTS)
def test_faults_and_commands_that_a_document_shows_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    faults = set(re.findall(r"--chaos ([a-z-]+)@", text)) | set(re.findall(r"`([a-z-]+)@\d", text))
    assert faults - {str(fault) for fault in DEMO_FAULTS} == set()
    known = get_group(app).commands
    for name, words in re.findall(
        r"(?:^|`|/)reconciler ([a-z]+)\b([^`\n]*)", text.replace("\\\n", " "), re.MULTILINE
    ):
        assert name in known
        options = {option for parameter in known[name].params for option in parameter.opts}
        shown = set(re.findall(r"(?<=\s)--?[A-Za-z][a-z-]*", words.partition("#")[0]))
        assert shown - options - {"--help"} == set(), name


@pytest.mark.parametrize("document", DOCUMENTS)
def test_targets_and_modules_that_a_document_has_run_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    blocks = re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`]+)`", re.sub(r"(?ms)^```.*?^```", "", text))
    code = "\n".join([*blocks, *(" ".join(words.split()) for words in inline)])
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z-]+)", code, re.MULTILINE)) - targets == set()
    for module in re.findall(r"python -m (tests[a-z_.]*)", code):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_the_benchmarks_are_those_of_the_table() -> None:
    rows = table_rows(REFERENCE / "benchmarks.md", "key")
    shown = [(name.strip("`"), unit, targets) for name, unit, targets, _ in rows]
    assert shown == [(figure.name, figure.unit, figure.shown_targets) for figure in FIGURES]


def test_the_migration_installs_before_it_stops_the_loop() -> None:
    steps = re.findall(r"^## \d+\. (.+)$", (DOCS / "migrate.md").read_text(), re.MULTILINE)
    assert steps.index("Install") < steps.index("Stop the loop")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_constant_that_a_document_names_exists(document: str) -> None:
    text = (ROOT / document).read_text()
    named = set(re.findall(r"`(?:[a-z_]+\.)?((?!RECONCILER_)[A-Z]+_[A-Z_]*(?:S|WORKER))`", text))
    assert {name for name in named if not re.search(rf"^{name} = ", SOURCE, re.MULTILINE)} == set()
