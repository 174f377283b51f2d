"""The operator's commands and their options; each one's work is imported when it is run."""

from collections.abc import Callable
from typing import Annotated

import typer

from reconciler.cli.exit_codes import CODES


def _complete(kind: str) -> Callable[..., list[str]]:
    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        from reconciler.cli import completion

        return completion.suggest(kind, ctx.params, incomplete)

    return complete


Namespace = Annotated[
    str,
    typer.Option(
        "--namespace", "-n", metavar="NS", help="Namespace; none: the context's.",
        autocompletion=_complete("namespace"),
    ),
]  # fmt: skip
Everywhere = Annotated[bool, typer.Option("--all-namespaces", "-A", help="All namespaces.")]
Selector = Annotated[
    str, typer.Option("--selector", "-l", metavar="SEL", help="Label selector for pods.")
]
Context = Annotated[
    str,
    typer.Option(
        metavar="C", help="Context of the kubeconfig.", autocompletion=_complete("context")
    ),
]
Kubeconfig = Annotated[
    str, typer.Option(metavar="FILE", help="Kubeconfig; none: KUBECONFIG, ~/.kube/config.")
]
Output = Annotated[
    str,
    typer.Option(
        "--output", "-o", metavar="table|json", help="Format.",
        autocompletion=_complete("output"),
    ),
]  # fmt: skip
Pod = Annotated[
    str,
    typer.Argument(
        metavar="[NS/]POD", help="A pod, or a session's ID.", autocompletion=_complete("pod")
    ),
]
Pods = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NS/]POD", help="Pods, or sessions' IDs.", autocompletion=_complete("pod")
    ),
]
All = Annotated[bool, typer.Option("--all", help="Every session pod of the namespace.")]
DryRun = Annotated[
    str, typer.Option(metavar="none|client", help="client: say what would be done, send nothing.")
]


def add_commands(app: typer.Typer) -> None:
    """Register the five commands; their help ends with what the exit codes mean."""
    for command in (status, explain, renew, pause, resume):
        app.command(epilog=CODES)(command)


def status(
    namespace: Namespace = "",
    everywhere: Everywhere = False,
    selector: Selector = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh until Ctrl-C.")] = False,
    output: Output = "table",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Show each live session pod and when its token expires.

    The next to expire comes first. Exits 1 if a live pod holds a dead token.
    """
    from reconciler.cli.cluster import Access
    from reconciler.cli.pod_selection import PodSelection
    from reconciler.cli.status import run_status

    choice = PodSelection(namespace=namespace, everywhere=everywhere, labels=selector)
    _end(run_status(Access(kubeconfig, context), choice, output=output, watch=watch))


def explain(
    pod: Pod,
    namespace: Namespace = "",
    output: Output = "table",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Say all about one pod's token in sentences.

    What it holds and until when, who wrote it, when it is renewed and why then, what failed
    lately, who leads, and what to do. Exits 1 if the pod lives and its token is dead.
    """
    from reconciler.cli.cluster import Access
    from reconciler.cli.explain import run_explain
    from reconciler.cli.pod_selection import PodSelection

    choice = PodSelection(namespace=namespace)
    _end(run_explain(Access(kubeconfig, context), pod, choice, output=output))


def renew(
    pods: Pods = None,
    namespace: Namespace = "",
    everywhere: Everywhere = False,
    selector: Selector = "",
    all_pods: All = False,
    wait: Annotated[bool, typer.Option("--wait", help="Until the tokens are written.")] = False,
    timeout: Annotated[str, typer.Option(metavar="30s", help="Longest --wait.")] = "30s",
    dry_run: DryRun = "none",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Ask the controller for new tokens now."""
    from reconciler.cli.cluster import Access
    from reconciler.cli.pod_selection import PodSelection
    from reconciler.cli.refresh import run_refresh

    choice = PodSelection(pods or (), namespace, everywhere, selector, all_pods)
    access = Access(kubeconfig, context)
    _end(run_refresh(access, choice, dry_run=dry_run, wait=wait, timeout=timeout))


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
    """Have these pods' tokens left alone, until `resume`."""
    from reconciler.cli.cluster import Access
    from reconciler.cli.pause import run_pause
    from reconciler.cli.pod_selection import PodSelection

    choice = PodSelection(pods or (), namespace, everywhere, selector, all_pods)
    _end(run_pause(Access(kubeconfig, context), choice, dry_run=dry_run))


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
    """Undo `pause`; what is due is written at once."""
    from reconciler.cli.cluster import Access
    from reconciler.cli.pause import run_resume
    from reconciler.cli.pod_selection import PodSelection

    choice = PodSelection(pods or (), namespace, everywhere, selector, all_pods)
    _end(run_resume(Access(kubeconfig, context), choice, dry_run=dry_run))


def _end(code: int) -> None:
    raise typer.Exit(code)
