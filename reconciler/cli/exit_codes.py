"""The exit codes of the commands, and the error that ends a command with one."""

from reconciler.errors import ReconcilerError

EXIT_EXPIRED = 1
"""A live pod has an expired token."""

EXIT_SETTINGS = 2
"""A setting, an option or the kubeconfig is wrong or missing; nothing was started."""

EXIT_UNREACHABLE = 4
"""The cluster is unreachable, or fails. 3 is what a failed `reconciler check` exits with."""

EXIT_FORBIDDEN = 5
"""The cluster rejects the credentials, or they lack a right."""

EXIT_NOT_FOUND = 6
"""There is no such pod, or the pod belongs to no session."""

EXIT_TIMEOUT = 7
"""`--wait` timed out, or there was no newer token."""

EXIT_OUTPUT = 8
"""The output could not be written: the disk is full, or standard output is closed."""

EXIT_NO_API_SERVER = 9
"""The kubeconfig's server answers 404 without a Status: it is no Kubernetes API server."""

EXIT_DEFECT = 70
"""A defect of this program, with a traceback. Source: sysexits.h, EX_SOFTWARE."""

EXIT_PIPE = 141
"""The reader of our output has ended. Source: shells, 128 + SIGPIPE."""

EXIT_INTERRUPTED = 130
"""Ctrl-C before there was a result. Source: shells, 128 + SIGINT."""

CODES = (
    "Exit codes: 0 success; 1 a live pod has an expired token (status, explain); 2 wrong option,"
    " setting or kubeconfig; 4 the cluster is unreachable; 5 a right is missing, or the credentials"
    " are rejected; 6 no such pod; 7 --wait timed out, or there was no newer token; 8 the output"
    " could not be written; 9 the kubeconfig's server is no Kubernetes API server; 70 a defect of"
    " this program."
)


class CommandError(ReconcilerError):
    """A command cannot continue. The message is one line for the user."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def worst(codes: list[int]) -> int:
    """Return the exit code of many results: the first that is not 0."""
    return next((code for code in codes if code), 0)
