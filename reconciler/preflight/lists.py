"""Lists sessions' objects as the controller will: what an authorizer grants may still fail."""

from reconciler.errors import RemoteError, WireError
from reconciler.kube.api import Kube, Scope
from reconciler.kube.objects import partial_resource
from reconciler.names import LIVE_PODS
from reconciler.preflight.verdicts import Verdict
from reconciler.settings import Settings

COUNTED = 500
"""Objects of a kind and namespace that are read and counted at most."""


async def list_sessions(kube: Kube, settings: Settings, namespaces: tuple[str, ...]) -> Verdict:
    """List the metadata of sessions' pods and Secrets.

    Args:
        namespaces: Where; none = everywhere, in one list of each kind.
    """
    names = settings.names()
    counts = {"pods": 0, "secrets": 0}
    more = False
    for namespace in namespaces or (None,):
        for plural in counts:
            scope = Scope(namespace, names.selector(), LIVE_PODS if plural == "pods" else "")
            kind = partial_resource(plural, names)
            try:
                page = await kube.list(kind, scope, limit=COUNTED, limit_s=settings.request_limit_s)
            except (RemoteError, WireError) as error:
                where = f"in namespace {namespace}" if namespace else "in all namespaces"
                says = f"cannot list the metadata of {plural} {where}: {error}"
                hint = "look at the API server and at what is between it and here"
                return Verdict("cluster", "missing", says, hint)
            counts[plural] += len(page.items)
            more |= bool(page.continue_token)
    found = f"{counts['pods']} pods and {counts['secrets']} Secrets of sessions"
    return Verdict("cluster", "ok", f"lists the metadata of {found}{', and more' if more else ''}")
