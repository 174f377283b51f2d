"""`reconciler run`, without typer and the other commands' options."""

from reconciler.cli.guard import guarded
from reconciler.settings import load_settings
from reconciler.telemetry.stderr_writer import redirect_output


def main() -> None:
    """Run the command line `reconciler run`, which has no options."""
    guarded(run)


def run() -> None:
    """Run the controller until a signal."""
    outlet = redirect_output()
    settings = load_settings()

    from reconciler.app.main import run  # a wrong setting is named without these imports

    run(settings, outlet)
