"""The commands of the lab: `demo`, `lab` and `simulate`.

The module of each is imported when it runs, so that `reconciler --help` stays fast.
"""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from reconciler.errors import SettingsError

_NEEDED = ("grpc", "joserfc")
_DELAY = re.compile(r"(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?")


def require_lab() -> None:
    """Raise `SettingsError` if packages that the lab needs are not installed."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"the lab needs packages that are not installed ({', '.join(missing)}):"
            " run `make setup` in the checkout"
        )


def parse_delay(text: str) -> tuple[float, float]:
    """Read `A-B`, or one number for both, in seconds; raises `SettingsError`."""
    found = _DELAY.fullmatch(text.strip())
    low, high = (float(found[1]), float(found[2] or found[1])) if found else (1.0, 0.0)
    if low > high:
        raise SettingsError(f"--projection-delay {text!r}: not of the form A-B, seconds, A <= B")
    return low, high


def add_commands(app: typer.Typer) -> None:
    """Add the lab's commands to a command line."""
    for command in (demo, lab, simulate):
        app.command()(command)


Sessions = Annotated[int, typer.Option(min=1, max=10_000, help="Sessions at the start.")]
TokenTtl = Annotated[
    float, typer.Option(min=5, max=31_536_000, metavar="S", help="Life of a token, seconds.")
]
Delay = Annotated[
    str, typer.Option(metavar="A-B", help="Seconds from a Secret's change to the runner's file.")
]


def _complete_fault(incomplete: str) -> list[tuple[str, str]]:
    from reconciler.lab.fault_catalogue import DEMO_FAULTS

    faults = [
        ("list", "print every fault and end"),
        *((str(each), each.help) for each in DEMO_FAULTS),
    ]
    return [(name, text) for name, text in faults if name.startswith(incomplete)]


Seed = Annotated[
    int | None, typer.Option(help="Of all random numbers; none: a new one for each run.")
]


def demo(
    sessions: Sessions = 20,
    replicas: Annotated[
        int, typer.Option(min=1, help="Controllers; one of them is the leader.")
    ] = 2,
    token_ttl: TokenTtl = 30.0,
    projection_delay: Delay = "1-3",
    duration: Annotated[
        float | None, typer.Option(min=1, metavar="S", help="Seconds; none: until Ctrl-C.")
    ] = None,
    chaos: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[@START[+SECONDS]]",
            help="A fault to inject; may be repeated. `list` prints every fault.",
            autocompletion=_complete_fault,
        ),
    ] = None,
    report: Annotated[
        str, typer.Option(metavar="json", help="Print the report as one JSON object.")
    ] = "",
    seed: Seed = None,
) -> None:
    """Run the whole system on this machine; exit 0 only if no runner held an expired token."""
    if chaos and "list" in chaos:
        from reconciler.lab.chaos.schedule import list_faults

        typer.echo("\n".join(list_faults()))
        return
    require_lab()
    from reconciler.lab.cli.demo import run_demo

    raise typer.Exit(
        run_demo(
            sessions=sessions,
            replicas=replicas,
            ttl_s=token_ttl,
            projection_delay=parse_delay(projection_delay),
            duration_s=duration,
            chaos=chaos or [],
            report=report,
            seed=seed,
        )
    )


def lab(
    sessions: Sessions = 20,
    token_ttl: TokenTtl = 900.0,
    projection_delay: Delay = "60-90",
    seed: Seed = None,
) -> None:
    """Run the demo environment without a controller; print what `reconciler run` needs."""
    require_lab()
    from reconciler.lab.cli.lab import run_lab

    run_lab(
        sessions=sessions,
        ttl_s=token_ttl,
        projection_delay=parse_delay(projection_delay),
        seed=seed,
    )


def simulate(
    seeds: Annotated[int, typer.Option(min=1, help="Number of worlds.")] = 20,
    first_seed: Annotated[int, typer.Option("--from", help="Seed of the first world.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that play worlds.")] = 1,
    results: Annotated[
        Path | None, typer.Option(help="File of the results: a later run continues from it.")
    ] = None,
    moves: Annotated[
        str | None, typer.Option(help="Moves instead of the drawn ones, as a failure prints them.")
    ] = None,
    sessions: Annotated[int | None, typer.Option(min=1, help="Only the first sessions.")] = None,
) -> None:
    """Play seeded worlds on virtual time, check every invariant; exit 1 if one is violated."""
    from reconciler.lab.cli.simulate import run_simulations

    try:
        code = run_simulations(
            seeds=seeds,
            first=first_seed,
            workers=workers,
            results=results,
            moves=moves,
            sessions=sessions,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    raise typer.Exit(code)
