"""The operator's commands and their options. A command's module is imported when it runs."""

from collections.abc import Callable
from typing import Annotated

import typer

from reconciler.cli.exit_codes import CODES


def _complete(kind: str) -> Callable[..., list[str]]:
    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        from reconciler.cli import completion

        return completion.suggest(kind, ctx.params, incomplete)

    return complete


def short_value(text: str) -> str:
    """Return the value of an option that kubectl takes as `-o json`, `-ojson` and `-o=json`."""
    return text.removeprefix("=")


Namespace = Annotated[
    str,
    typer.Option(
        "--namespace", "-n", metavar="NS", help="Namespace; default: the context's.",
        callback=short_value, autocompletion=_complete("namespace"),
    ),
]  # fmt: skip
Everywhere = Annotated[
    bool, typer.Option("--all-namespaces", "-A", help="In all namespaces, also for a name.")
]
Selector = Annotated[
    str,
    typer.Option(
        "--selector", "-l", metavar="SEL", help="Label selector of pods.", callback=short_value
    ),
]
Context = Annotated[
    str,
    typer.Option(
        metavar="C", help="Context of the kubeconfig.", autocompletion=_complete("context")
    ),
]
Kubeconfig = Annotated[
    str, typer.Option(metavar="FILE", help="Kubeconfig; default: KUBECONFIG, ~/.kube/config.")
]
Output = Annotated[
    str,
    typer.Option(
        "--output", "-o", metavar="table|yaml|json|jsonpath=TEMPLATE", help="Output format.",
        callback=short_value, autocompletion=_complete("output"),
    ),
]  # fmt: skip
FleetFormat = Annotated[
    str,
    typer.Option(
        "--output", "-o", metavar="table|wide|yaml|json|name|jsonpath=TEMPLATE",
        help="Output format.", callback=short_value, autocompletion=_complete("fleet_output"),
    ),
]  # fmt: skip
SortBy = Annotated[
    str,
    typer.Option(
        metavar="FIELD", help="Order of the pods: a field of -o json, as .expiresAt.",
        autocompletion=_complete("sort_field"),
    ),
]  # fmt: skip
Pod = Annotated[
    str,
    typer.Argument(
        metavar="[NS/]POD", help="A pod's name, or a session's ID.", autocompletion=_complete("pod")
    ),
]
Pods = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NS/]POD", help="Pods' names, or sessions' IDs.", autocompletion=_complete("pod")
    ),
]
All = Annotated[bool, typer.Option("--all", help="All session pods of the namespace.")]
DryRun = Annotated[
    str,
    typer.Option(metavar="none|client", help="client: print what would be done, and send nothing."),
]


def add_commands(app: typer.Typer) -> None:
    """Register the commands. Their help ends with the exit codes; `renew` is the former name."""
    for command in (status, explain, refresh, pause, resume):
        app.command(epilog=CODES)(command)
    app.command("renew", hidden=True, epilog=CODES)(refresh)


def status(
    pods: Pods = None,
    namespace: Namespace = "",
    everywhere: Everywhere = False,
    selector: Selector = "",
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Update the list until Ctrl-C.")
    ] = False,
    output: FleetFormat = "table",
    no_headers: Annotated[
        bool, typer.Option("--no-headers", help="Print no line with the columns' names.")
    ] = False,
    sort_by: SortBy = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """List the live session pods and when their tokens expire.

    Without a name: all of the namespace. The next to expire comes first. Exits with 1 if a live pod
    has an expired token.
    """
    from reconciler.cli.cluster import Access
    from reconciler.cli.fleet_output import parse_fleet_output
    from reconciler.cli.pod_selection import PodSelection
    from reconciler.cli.status import run_status

    selection = PodSelection(pods or (), namespace, everywhere, selector)
    shown = parse_fleet_output(output, no_headers=no_headers, sort_by=sort_by)
    _end(run_status(Access(kubeconfig, context), selection, shown, watch=watch))


def explain(
    pod: Pod,
    namespace: Namespace = "",
    everywhere: Everywhere = False,
    output: Output = "table",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Describe one pod's token and what to do.

    Shows its expiry, who wrote it, when it is refreshed next and why then, recent failures, and
    the leader. Exits with 1 if the pod is live and its token has expired.
    """
    from reconciler.cli.cluster import Access
    from reconciler.cli.explain import run_explain
    from reconciler.cli.pod_selection import PodSelection

    selection = PodSelection(namespace=namespace, everywhere=everywhere)
    _end(run_explain(Access(kubeconfig, context), pod, selection, output=output))


def refresh(
    pods: Pods = None,
    namespace: Namespace = "",
    everywhere: Everywhere = False,
    selector: Selector = "",
    all_pods: All = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the tokens are written.")
    ] = False,
    timeout: Annotated[str, typer.Option(metavar="30s", help="Longest wait of --wait.")] = "30s",
    dry_run: DryRun = "none",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Request new tokens now.

    The controller writes them to the Secrets.
    """
    from reconciler.cli.cluster import Access
    from reconciler.cli.pod_selection import PodSelection
    from reconciler.cli.refresh import run_refresh

    selection = PodSelection(pods or (), namespace, everywhere, selector, all_pods)
    access = Access(kubeconfig, context)
    _end(run_refresh(access, selection, dry_run=dry_run, wait=wait, timeout=timeout))


def pause(
    pods: Pods = None,
    namespace: Namespace = "",
    everywhere: Everywhere = False,
    selector: Selector = "",
    all_pods: All = False,
    dry_run: DryRun = "none",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Stop refreshing these pods' tokens, until `resume`."""
    from reconciler.cli.cluster import Access
    from reconciler.cli.pause import run_pause
    from reconciler.cli.pod_selection import PodSelection

    selection = PodSelection(pods or (), namespace, everywhere, selector, all_pods)
    _end(run_pause(Access(kubeconfig, context), selection, dry_run=dry_run))


def resume(
    pods: Pods = None,
    namespace: Namespace = "",
    everywhere: Everywhere = False,
    selector: Selector = "",
    all_pods: All = False,
    dry_run: DryRun = "none",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Refresh paused pods' tokens again.

    A refresh that is due happens at once.
    """
    from reconciler.cli.cluster import Access
    from reconciler.cli.pause import run_resume
    from reconciler.cli.pod_selection import PodSelection

    selection = PodSelection(pods or (), namespace, everywhere, selector, all_pods)
    _end(run_resume(Access(kubeconfig, context), selection, dry_run=dry_run))


def _end(code: int) -> None:
    raise typer.Exit(code)
