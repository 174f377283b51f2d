"""`reconciler run`: settings first, so that a wrong one costs no import and no connection."""

from reconciler.observe.outlet import take_over_output
from reconciler.settings import load_settings


def run_controller() -> None:
    """Read the settings and run until a signal; no reader of the output is ever waited for."""
    outlet = take_over_output()
    settings = load_settings()

    from reconciler.app import run

    run(settings, outlet)
