"""What a command's exit code means, and the error that carries one to the end."""

from reconciler.errors import ReconcilerError

EXIT_EXPIRED = 1
"""A live pod holds a dead token."""

EXIT_SETTINGS = 2
"""A setting, an option or the kubeconfig is wrong or missing; nothing was started."""

EXIT_UNREACHABLE = 4
"""The cluster cannot be reached, or fails; 3 is what `reconciler check` found missing."""

EXIT_FORBIDDEN = 5
"""The cluster does not accept the credentials, or they lack a right."""

EXIT_NOT_FOUND = 6
"""No such pod, or it is no session's pod."""

EXIT_TIMEOUT = 7
"""`--wait` ended before everything that was asked for had happened."""

EXIT_OUTPUT = 8
"""What was found could not be written: the disk is full, or standard output is closed."""

EXIT_PIPE = 141
"""The reader of our output has ended. Source: shells, 128 + SIGPIPE."""

EXIT_INTERRUPTED = 130
"""Ctrl-C before there was anything to tell. Source: shells, 128 + SIGINT."""

CODES = (
    "Exit codes: 0 all is well; 1 a live pod holds a dead token (status, explain); 2 wrong option,"
    " setting or kubeconfig; 4 the cluster cannot be reached; 5 no right, or credentials refused;"
    " 6 no such pod; 7 --wait ran out of time; 8 the output could not be written."
)


class CommandError(ReconcilerError):
    """A command cannot go on; the message is one line for whoever typed it."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def worst(codes: list[int]) -> int:
    """Return one code for many results: the first that is not 0."""
    return next((code for code in codes if code), 0)
