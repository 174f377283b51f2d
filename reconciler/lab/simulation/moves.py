"""A move: one change of the environment, with its time, length and size (pure)."""

import re
from dataclasses import dataclass

from reconciler.lab.fault_catalogue import Fault

LOCAL = frozenset({Fault.NAMESPACE_SLOW, Fault.NAMESPACE_HANG, Fault.NAMESPACE_ERRORS})
"""Faults of one namespace: sessions in other namespaces are served at once."""

FAULTS = {fault.value: fault for fault in Fault}

_MOVE = re.compile(r"([a-z-]+)@([\d.]+)\+([\d.]+)\*([\d.e-]+)")


@dataclass(frozen=True, slots=True)
class Move:
    """One change of a world's environment; `size` in [0, 1) is its severity, by kind.

    >>> str(Move(Fault.KILL_LEADER, 30.0, 12.5, 0.25))
    'kill-leader@30.0+12.5*0.25'
    >>> Move.parse("kill-leader@30.0+12.5*0.25") == Move(Fault.KILL_LEADER, 30.0, 12.5, 0.25)
    True
    """

    kind: Fault
    at_s: float
    length_s: float
    size: float

    def __str__(self) -> str:
        return f"{self.kind}@{self.at_s!r}+{self.length_s!r}*{self.size!r}"

    @classmethod
    def parse(cls, text: str) -> "Move":
        """Return the move that a text from `str` describes; ValueError for any other text."""
        found = _MOVE.fullmatch(text)
        if found is None or found[1] not in FAULTS:
            raise ValueError(f"a move is NAME@START+LENGTH*SIZE, not {text!r}")
        kind, *numbers = found.groups()
        return cls(FAULTS[kind], *map(float, numbers))

    @property
    def end_s(self) -> float:
        return self.at_s + self.length_s
