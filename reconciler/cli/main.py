"""The command line: one module a command, imported only when it is run."""

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from reconciler import __version__
from reconciler.cli.exits import EXIT_SETTINGS, CommandError
from reconciler.cli.operator import Context, Kubeconfig, add_commands
from reconciler.cli.stdout import guard_stdout
from reconciler.errors import SettingsError


def make_app(text: str, *, completion: bool = True) -> typer.Typer:
    """Return an empty command line with our manners: plain help, plain tracebacks."""
    return typer.Typer(
        help=text,
        no_args_is_help=True,
        add_completion=completion,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


app = make_app("Keeps the short-lived token of every runner pod alive in its Kubernetes Secret.")


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


@app.command()
def check(
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="text|json", help="How to print it.")
    ] = "text",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Ask whether rights, issuer, platform and clock are as `run` needs them; exit 3 if not."""
    from reconciler.cli.check import run_check

    raise typer.Exit(run_check(output=output, kubeconfig=kubeconfig, context=context))


Sessions = Annotated[int, typer.Option(min=1, max=10_000, help="Sessions at the start.")]
TokenTtl = Annotated[float, typer.Option(min=5, metavar="S", help="Life of a token, seconds.")]
Delay = Annotated[
    str, typer.Option(metavar="A-B", help="Seconds from a Secret's change to the runner's file.")
]
Seed = Annotated[int | None, typer.Option(help="Of the box's chance; none: another each time.")]


@app.command()
def demo(
    sessions: Sessions = 20,
    replicas: Annotated[int, typer.Option(min=1, help="Controllers; one of them leads.")] = 2,
    token_ttl: TokenTtl = 30.0,
    projection_delay: Delay = "1-3",
    duration: Annotated[
        float | None, typer.Option(min=1, metavar="S", help="Seconds; none: until Ctrl-C.")
    ] = None,
    chaos: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[@START[+SECONDS]]", help="A fault; may be repeated."),
    ] = None,
    report: Annotated[
        str, typer.Option(metavar="json", help="Print the report as one JSON object.")
    ] = "",
    seed: Seed = None,
) -> None:
    """Show the whole system in a box; exit 0 only if no token expired in use."""
    from reconciler.cli.demo import run_demo

    raise typer.Exit(
        run_demo(
            sessions=sessions,
            replicas=replicas,
            ttl_s=token_ttl,
            delay=projection_delay,
            duration_s=duration,
            chaos=chaos or [],
            report=report,
            seed=seed,
        )
    )


@app.command()
def lab(
    sessions: Sessions = 20,
    token_ttl: TokenTtl = 900.0,
    projection_delay: Delay = "60-90",
    seed: Seed = None,
) -> None:
    """Run the box without controllers; prints the environment that `reconciler run` needs."""
    from reconciler.cli.lab import run_lab

    run_lab(sessions=sessions, ttl_s=token_ttl, delay=projection_delay, seed=seed)


@app.command()
def simulate(
    seeds: Annotated[int, typer.Option(min=1, help="How many worlds.")] = 20,
    first_seed: Annotated[int, typer.Option("--seed", help="Seed of the first one.")] = 0,
    hours: Annotated[float, typer.Option(min=0.01, max=48, help="Virtual hours of each.")] = 1.0,
) -> None:
    """Play seeded worlds on virtual time and check every invariant; exit 1 if one is violated."""
    from reconciler.cli.simulate import run_simulations

    raise typer.Exit(run_simulations(seeds=seeds, first=first_seed, hours=hours))


add_commands(app)


def main() -> None:
    """Run the command line."""
    guarded(lambda: app(prog_name="reconciler"))


def guarded(command: Callable[[], object]) -> None:
    """Run a command line; what only a human can mend ends it with readable lines and its code."""
    guard_stdout()
    try:
        try:
            command()
        finally:
            sys.stdout.flush()  # here, since at the interpreter's end a failure is a traceback
    except (SettingsError, CommandError) as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"reconciler: {line}\n")
        sys.exit(error.code if isinstance(error, CommandError) else EXIT_SETTINGS)
