"""`reconciler settings`: the effective settings and where each comes from; secrets are redacted."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import SecretStr

from reconciler.cli.output import print_err, print_json, print_out, wants_json
from reconciler.errors import SettingsError
from reconciler.factories import SecretSetting
from reconciler.humanize import reason
from reconciler.net.client_session import shown_url
from reconciler.settings import Settings, read_settings, unknown_variables

REDACTED = "(redacted)"
NONE = "none"

_FILE = "_FILE"


class EffectiveSetting(NamedTuple):
    """One setting as `reconciler run` would use it.

    Attributes:
        variable: The environment variable.
        value: The value as it may be shown.
        source: `default`, `environment`, or `file PATH`.
    """

    variable: str
    value: str
    source: str


def run_settings(*, output: str) -> int:
    """Print every setting and return 0; raises `SettingsError` for a wrong one.

    Variables that are no setting are named on standard error.
    """
    is_json = wants_json(output)
    found = effective_settings(read_settings(), os.environ)
    if is_json:
        print_json({"settings": [setting._asdict() for setting in found]})
    else:
        print_out(as_table(found))
    for name, nearest in unknown_variables(os.environ).items():
        near = f"; the nearest is {nearest}" if nearest else ""
        print_err(f"{name} is no setting and has no effect{near}")
    return 0


def effective_settings(
    settings: Settings, environment: Mapping[str, str]
) -> list[EffectiveSetting]:
    """Return each setting in the order of `Settings`.

    A variable NAME for which NAME_FILE is set comes from that file, which is read for that.
    """
    values = {
        str(field.validation_alias): getattr(settings, name)
        for name, field in Settings.model_fields.items()
    }
    found = []
    for variable, value in values.items():
        file = values.get(f"{variable}{_FILE}")
        if file is not None:
            found.append(EffectiveSetting(variable, _held(file), f"file {file}"))
        else:
            source = "environment" if environment.get(variable) else "default"
            found.append(EffectiveSetting(variable, shown(value), source))
    return found


def shown(value: Any) -> str:
    """Return a value as it may be shown: of a secret, a URL's query and a form field, that it is
    set."""
    if value in (None, "", []):
        return NONE
    if isinstance(value, SecretStr):
        return REDACTED if value.get_secret_value() else NONE
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        is_form = isinstance(value[0], tuple)
        parts = [f"{one[0]}={REDACTED}" if is_form else str(one) for one in value]
        return reason(("&" if is_form else ",").join(parts))
    text = str(value)
    if "://" in text:
        text = shown_url(text) + (f"?{REDACTED}" if urlsplit(text).query else "")
    return reason(text)


def as_table(found: list[EffectiveSetting]) -> str:
    """Return aligned columns with a heading."""
    rows = [("VARIABLE", "VALUE", "SOURCE"), *found]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(
        f"{variable:<{widths[0]}}  {value:<{widths[1]}}  {source}"
        for variable, value, source in rows
    )


def _held(file: Path) -> str:
    """Return whether a file of a secret can be used, without its content."""
    try:
        SecretSetting(None, file).read()
    except SettingsError as error:
        return f"(unusable: {reason(str(error))})"
    return REDACTED
