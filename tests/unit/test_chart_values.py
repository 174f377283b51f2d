"""The chart's values, schema and version against the code; its objects are a cluster test."""

import json
from pathlib import Path

import yaml

from reconciler import __version__
from reconciler.settings import Settings

CHART = Path(__file__).parents[2] / "manifests" / "chart"

SET_BY_THE_CHART = {
    "NAMESPACE", "RECONCILER_REPLICA", "RECONCILER_POD_UID", "PROJECT_KUBE_TOKEN_FILE",
    "KUBECONFIG", "RECONCILER_LISTEN", "RECONCILER_SHARD",
}  # fmt: skip
CREDENTIALS = {
    f"{name}{suffix}"
    for name in ("OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET", "AMBIENT_API_TOKEN")
    for suffix in ("", "_FILE")
}


def test_the_schema_has_every_key_of_the_values_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(schema["properties"]) == {*values, "global"}
    for key, value in values.items():
        known = schema["properties"][key].get("properties")
        if known is not None and key not in ("settings", "resources"):
            assert set(known) == set(value), key
            # `null` removes a key, which the templates would take as false or as no name.
            assert set(schema["properties"][key]["required"]) == set(value), key
            assert key in schema["required"]


def test_the_schema_has_every_setting_but_credentials_and_those_that_the_chart_sets() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    variables = {str(field.validation_alias) for field in Settings.model_fields.values()}
    offered = set(schema["properties"]["settings"]["properties"])
    assert offered == variables - SET_BY_THE_CHART - CREDENTIALS


def test_the_chart_has_the_version_of_the_tree() -> None:
    found = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (found["version"], found["appVersion"]) == (__version__, __version__)
