"""Credentials for the API server: a pod's service account, or those of a kubeconfig.

kubernetes-asyncio's loaders read both. This room adds what they lack: token files are read again
before they expire, a half-written file never replaces a good token, and after a 401 everything is
read again, which runs an exec plug-in once more.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from reconciler.clock import Clock
from reconciler.errors import SettingsError
from reconciler.kube.auth._kubernetes_asyncio import Configuration, load
from reconciler.kube.auth.connection import Credentials, connection_of, trust_of
from reconciler.kube.auth.token_file import TokenFile, bearer
from reconciler.net.client_pool import Connection
from reconciler.net.file_rotation import FileRotation

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

DEFAULT_KUBECONFIG = os.environ.get("KUBECONFIG", "~/.kube/config")

_incluster_config = load("incluster_config")


class InClusterCredentials:
    """A pod's service account, or another account's token file with the same server and CA.

    Args:
        folder: The folder into which the kubelet projects `token` and `ca.crt`.
    """

    def __init__(
        self, clock: Clock, token_file: Path | None = None, *, folder: Path = SERVICE_ACCOUNT
    ) -> None:
        self._folder = folder
        self._token = TokenFile(token_file or folder / "token", clock)
        self._files = FileRotation(lambda: (folder / "ca.crt",), clock)

    def version(self, *, fresh: bool = False) -> str:
        return self._files.version(fresh=fresh)

    async def connection(self) -> Connection:
        loaded = Configuration()
        try:
            _incluster_config.load_incluster_config(
                client_configuration=loaded,
                token_filename=str(self._folder / "token"),
                cert_filename=str(self._folder / "ca.crt"),
            )
        except (_incluster_config.ConfigException, OSError, ValueError) as error:
            problem = type(error).__name__ if isinstance(error, ValueError) else str(error)
        else:
            return connection_of(loaded, trust_of(loaded))
        if not os.environ.get("KUBERNETES_SERVICE_HOST"):
            raise SettingsError(
                "not in a pod, KUBECONFIG is not set, and there is no ~/.kube/config"
            )
        file = self._folder / ("token" if "token" in problem.lower() else "ca.crt")
        raise SettingsError(f"{file}: {problem}")

    async def headers(self, url: str = "") -> Mapping[str, str]:
        return bearer(self._token.value())

    async def renew(self) -> None:
        self._token.value(fresh=True)


def find_credentials(
    kubeconfig: str,
    clock: Clock,
    *,
    context: str | None = None,
    token_file: Path | None = None,
    ignored: Callable[[str], None] = lambda field: None,
) -> Credentials:
    """Return the credentials of KUBECONFIG, else ~/.kube/config, else the pod's files.

    Args:
        ignored: Called once for each field of a kubeconfig that is set and has no effect.
    """
    path = kubeconfig_path(kubeconfig)
    if path:
        # With YAML and the loaders a twentieth of the start's CPU, which a pod does without.
        from reconciler.kube.auth.kubeconfig import KubeconfigCredentials

        return KubeconfigCredentials(
            path, clock, context=context, token_file=token_file, ignored=ignored
        )
    return InClusterCredentials(clock, token_file)


def kubeconfig_path(kubeconfig: str) -> str:
    """Return the value of KUBECONFIG, else ~/.kube/config if it exists, else ""."""
    default = Path(os.path.expanduser(DEFAULT_KUBECONFIG))  # a user may have no home
    return kubeconfig or (str(default) if default.is_file() else "")
