"""The command line: one module a command, imported only when it is run."""

import sys
from typing import Annotated

import typer

from reconciler import __version__
from reconciler.errors import SettingsError

EXIT_SETTINGS = 2
"""A setting is wrong or missing; nothing was started."""

app = typer.Typer(
    name="reconciler",
    help="Keeps the short-lived token of every runner pod alive in its Kubernetes Secret.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"reconciler {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Hold the options that every command shares."""


@app.command()
def run() -> None:
    """Run the controller: in-cluster, or with KUBECONFIG. Settings come from the environment."""
    from reconciler.cli.run import run_controller

    run_controller()


def main() -> None:
    """Run the command line; exit 2 with one readable message for a wrong setting."""
    try:
        app()
    except SettingsError as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"reconciler: {line}\n")
        sys.exit(EXIT_SETTINGS)
