"""The enforcement of NetworkPolicies on the node: only the firewall of kube-router."""

import shutil
from pathlib import Path

from tests.cluster.process import Server

PROGRAM = "kube-router"

NEEDED = ("iptables", "ipset")
"""Debian's packages, named like their programs; kube-router runs both."""

BRIDGED = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
"""Pods of one node use only the bridge; with 1, iptables filters that traffic, too."""


def why_not() -> str:
    """Return "" if policies can be enforced, else what is missing."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        return f"no {' and no '.join(missing)} on PATH: install them"
    return "" if BRIDGED.exists() else f"no {BRIDGED}: load the kernel's br_netfilter"


def enforcer(binary: Path, *, kubeconfig: Path, node_name: str, log: Path) -> Server:
    """Return the process that enforces all policies on the pods of a registered node."""
    BRIDGED.write_text("1")  # our own network's, which a machine's setting may not have reached
    command = [
        str(binary),
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={node_name}",
        "--run-firewall=true",
        "--run-router=false",
        "--run-service-proxy=false",
        "--health-port=0",
    ]
    return Server(PROGRAM, command, log=log)
