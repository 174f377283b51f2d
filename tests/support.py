"""Doubles that the tests share; each is small enough to be read instead of trusted."""

from dataclasses import dataclass


@dataclass
class ManualClock:
    """A `Clock` that a test moves by hand; both clocks advance together unless stepped."""

    now_at: float = 1000.0
    wall_s: float = 1_767_225_600.0

    def monotonic(self) -> float:
        return self.now_at

    def wall(self) -> float:
        return self.wall_s

    def advance(self, seconds: float) -> None:
        self.now_at += seconds
        self.wall_s += seconds
