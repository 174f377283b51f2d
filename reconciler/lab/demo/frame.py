"""The figures of one moment of a demo, for its views; holds no token (pure)."""

from dataclasses import dataclass

from reconciler.lab.runners.exposure_ledger import State


@dataclass(frozen=True, slots=True)
class Bar:
    """One session: seconds left of the token in its runner's file, None if no runner runs."""

    name: str
    state: State
    left_s: float | None


@dataclass(frozen=True, slots=True)
class Frame:
    """Figures as in the report.

    Args:
        bars: In the order in which the sessions began.
        kubeconfig_hint: What another terminal needs for kubectl and for the operator's commands.
    """

    elapsed_s: float
    duration_s: float | None
    ttl_s: float
    expired_s: float
    unauthenticated: int
    reauthentications: int
    calls: int
    refreshes: int
    failures: int
    bars: tuple[Bar, ...]
    controllers: tuple[str, ...]
    page_url: str
    chaos: tuple[str, ...]
    waiting: tuple[str, ...]
    kubeconfig_hint: str = ""

    @property
    def running(self) -> int:
        return sum(bar.left_s is not None for bar in self.bars)

    def by_life(self) -> list[Bar]:
        """Return the bars, shortest life first; those without a runner last."""
        return sorted(self.bars, key=lambda b: (b.left_s is None, b.left_s or 0.0, b.name))


def progress_line(frame: Frame) -> str:
    """Return the main figures in one line."""
    lives = [bar.left_s for bar in frame.bars if bar.left_s is not None]
    end = f" of {frame.duration_s:g}" if frame.duration_s is not None else ""
    parts = [
        f"{frame.elapsed_s:.0f}{end} s",
        f"expired-token seconds {frame.expired_s:.1f}",
        f"unauthenticated {frame.unauthenticated}",
        f"{frame.running}/{len(frame.bars)} running",
        f"shortest life {min(lives):.1f} s" if lives else "no runner yet",
        f"{frame.refreshes} refreshes",
    ]
    if frame.chaos:
        parts.append("chaos " + " ".join(frame.chaos))
    return " | ".join(parts)
