"""Which replica serves the page, of which cluster and namespace, and how to reach the leader."""

import re
from collections.abc import Mapping, Sequence
from urllib.parse import unquote

import msgspec

from reconciler.controller.status.snapshot import LeaseStatus
from reconciler.humanize import clean
from reconciler.naming import ALL_SESSIONS, Shard
from reconciler.settings import TRACE_ID

CLUSTER_ATTRIBUTE = "k8s.cluster.name"
"""Source: OpenTelemetry semantic conventions, resource attributes of Kubernetes."""

_POD = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")
"""A name that is safe in a command. Source: RFC 1123, as Kubernetes restricts a pod's name."""


class Links(msgspec.Struct, frozen=True):
    """Addresses elsewhere, each "" for none; in `traces`, `TRACE_ID` stands for an ID."""

    dashboard: str = ""
    runbooks: str = ""
    traces: str = ""

    def runbook(self, alert: str) -> str:
        """Return the address of an alert's section; "" without one."""
        return f"{self.runbooks}#{alert.lower()}" if self.runbooks and alert else ""

    def trace(self, trace_id: str) -> str:
        """Return the address of a trace; "" without one."""
        return self.traces.replace(TRACE_ID, trace_id) if trace_id else ""


class PageIdentity(msgspec.Struct, frozen=True):
    """One replica; `namespace` and `cluster` are "" where they are not known.

    Args:
        port: Of the page, in the leader's pod too.
        ignored: One message for each variable that is no setting.
    """

    replica: str
    namespace: str = ""
    cluster: str = ""
    port: int = 8080
    ignored: Sequence[str] = ()
    links: Links = Links()

    def place(self, shard: Shard) -> str:
        """Return cluster, namespace and shard in a line; "" if none is known."""
        part = f"shard {shard}" if shard != ALL_SESSIONS else ""
        return clean(" / ".join(each for each in (self.cluster, self.namespace, part) if each))

    def leader_command(self, lease: LeaseStatus) -> str:
        """Return the command that makes the leader's page reachable, "" where no pod is known."""
        pod = leader_name(lease)
        if not (_POD.fullmatch(pod) and _POD.fullmatch(self.namespace)):
            return ""
        return f"kubectl -n {self.namespace} port-forward {pod} {self.port}"


def leader_name(lease: LeaseStatus) -> str:
    """Return the leader's name, which is its pod's, from the holder of the Lease; "" for none."""
    return re.split("[_/]", lease.leader)[0]


def cluster_name(environ: Mapping[str, str]) -> str:
    """Return the cluster that OTEL_RESOURCE_ATTRIBUTES names, or ""."""
    for pair in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        name, _, value = pair.partition("=")
        if name.strip() == CLUSTER_ATTRIBUTE:
            return unquote(value.strip())
    return ""
