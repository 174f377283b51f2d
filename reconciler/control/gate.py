"""Leave to write: who may change the cluster right now."""

from typing import Protocol


class Gate(Protocol):
    """Asked before each write, and once more as its bytes leave."""

    @property
    def term(self) -> str:
        """Name of the writer for `token-refreshed-by`: replica and lease term."""
        ...

    @property
    def refused_total(self) -> int:
        """Number of writes that were not let through."""
        ...

    def may_write(self, need_s: float) -> bool:
        """Tell whether this replica may write for the next `need_s` seconds."""
        ...

    def check(self) -> None:
        """Raise `DeposedError` unless this replica may write at this moment."""
        ...


class OpenGate:
    """The gate of the only replica: always open."""

    refused_total = 0

    def __init__(self, replica: str) -> None:
        self.term = replica

    def may_write(self, need_s: float) -> bool:
        return True

    def check(self) -> None:
        return None
