"""The node's network: one bridge for pods, and the API server's service address, inside our own."""

import ipaddress
import json
import subprocess
from pathlib import Path

BRIDGE = "node0"
SUBNET = "10.77.0.0/24"
NODE = "10.77.0.1"
"""The bridge's address: the pods' gateway, and the node's own."""

SERVICE = "10.0.0.1"
"""First address of the control plane's service range: the Service `kubernetes` has it. There is no
kube-proxy, so the node itself has it as well."""

ELSEWHERE = ipaddress.ip_network("10.77.1.0/24").hosts()
"""Addresses outside of the pods' network, for servers that are no part of the cluster."""

ISSUER_PORT, PLATFORM_PORT = 6443, 8000
"""Theirs on each such address: of the ports that the product's NetworkPolicy names."""

PLUGINS = Path("/usr/lib/cni")


def is_ours() -> bool:
    """Return whether this network has loopback alone: a namespace made for us, not a machine's."""
    shown = subprocess.run(
        ["ip", "-json", "link"], capture_output=True, text=True, timeout=10, check=True
    )
    return {link["ifname"] for link in json.loads(shown.stdout)} <= {"lo", BRIDGE}


def add_address() -> str:
    """Give the node one more address of elsewhere; return it."""
    address = str(next(ELSEWHERE))
    _run(f"ip address add {address}/32 dev lo")
    return address


def set_up(folder: Path) -> Path:
    """Make the bridge and its CNI configuration; return the configuration's folder."""
    for command in (
        f"ip link add {BRIDGE} type bridge",
        f"ip address add {NODE}/24 dev {BRIDGE}",
        f"ip link set {BRIDGE} up",
        f"ip address add {SERVICE}/32 dev lo",
    ):
        _run(command)
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "ipMasq": False,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": SUBNET, "gateway": NODE}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": str(folder / "leases"),
        },
    }
    configuration = folder / "cni"
    configuration.mkdir()
    (configuration / "node.conflist").write_text(
        json.dumps({"cniVersion": "0.4.0", "name": "node", "plugins": [bridge]})
    )
    return configuration


def _run(command: str) -> None:
    subprocess.run(command.split(), check=True, timeout=10, capture_output=True)
