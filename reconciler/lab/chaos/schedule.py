"""`--chaos NAME[@START[+SECONDS]]`: when a fault begins in a demo, and how long it lasts (pure)."""

import re
from dataclasses import dataclass

from reconciler.errors import SettingsError
from reconciler.lab.fault_catalogue import DEMO_FAULTS, Fault

START_S = 10.0
"""Start of a fault where none is given; at most half of the run."""

_SHAPE = re.compile(
    r"(?P<name>[a-z-]+)(?:@(?P<start>\d+(?:\.\d+)?)(?:\+(?P<length>\d+(?:\.\d+)?))?)?"
)


@dataclass(frozen=True, slots=True)
class ScheduledFault:
    """One fault of a run: seconds from the controllers' start, and for how long."""

    name: Fault
    start_s: float
    length_s: float

    def __str__(self) -> str:
        length = f"+{self.length_s:g}" if self.length_s else ""
        return f"{self.name}@{self.start_s:g}{length}"

    @property
    def end_s(self) -> float:
        return self.start_s + self.length_s


def parse_chaos(text: str, *, ttl_s: float, duration_s: float | None = None) -> ScheduledFault:
    """Read one `--chaos` value.

    Args:
        ttl_s: Life of the tokens, seconds; a default length is a fraction of it.
        duration_s: Length of the run, or None where it has no planned end.
    Raises:
        SettingsError: One line that names the right form, or all faults.
    """
    found = _SHAPE.fullmatch(text.strip())
    if found is None:
        raise SettingsError(f"--chaos {text!r}: not of the form NAME[@START[+SECONDS]]; {_names()}")
    fault = next((each for each in DEMO_FAULTS if each == found["name"]), None)
    if fault is None:
        raise SettingsError(f"--chaos {found['name']}: unknown fault; {_names()}")
    default_s = START_S if duration_s is None else min(START_S, duration_s / 2)
    start_s = default_s if found["start"] is None else float(found["start"])
    if duration_s is not None and start_s >= duration_s:
        raise SettingsError(f"--chaos {text}: begins after the run's end at {duration_s:g} s")
    given = found["length"]
    length_s = (fault.demo_ttl or 0.0) * ttl_s if given is None else float(given)
    return ScheduledFault(fault, start_s, length_s)


def list_faults() -> list[str]:
    """Return a line for each fault of a demo: its name, what happens, and its usual length."""
    width = max(map(len, DEMO_FAULTS))
    return [
        f"{fault:<{width}}  {fault.help}"
        + (f" (for {fault.demo_ttl:g} of a token's life)" if fault.demo_ttl else "")
        for fault in DEMO_FAULTS
    ]


def _names() -> str:
    return f"the names are {', '.join(DEMO_FAULTS)}"
