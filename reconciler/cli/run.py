"""`reconciler run`: settings first, so that a wrong one costs no import and no connection."""

from reconciler.settings import load_settings


def run_controller() -> None:
    """Read the settings and run until a signal."""
    settings = load_settings()

    from reconciler.app import run

    run(settings)
