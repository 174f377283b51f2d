"""Chaos by name: the table of names and the parser of `NAME[@START[+SECONDS]]` (pure)."""

import re
from dataclasses import dataclass

from reconciler.errors import SettingsError


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One name of the table.

    Args:
        help: What happens, in a few words.
        length_ttl: Length where none is given, as a fraction of the tokens' life; 0.0 = at once.
    """

    help: str
    length_ttl: float = 0.0


KINDS = {
    "restart-all": FaultKind("every controller is killed (SIGKILL) and started again in its pod"),
    "kill-leader": FaultKind("the leading controller is killed, its pod with it"),
    "freeze-leader": FaultKind(
        "the leading controller is stopped where it is, and goes on later", 0.5
    ),
    "clock-step": FaultKind("clocks of the controllers step an hour, every other one back", 0.3),
    "issuer-outage": FaultKind("the issuer closes every connection without an answer", 0.45),
    "issuer-short-ttl": FaultKind("tokens live for 0.6 of their usual life", 1.0),
    "api-outage": FaultKind(
        "the Kubernetes API refuses and resets connections, the kubelet's too", 0.1
    ),
    "api-slow": FaultKind("each answer of the Kubernetes API takes up to a second longer", 0.5),
    "api-throttle": FaultKind("the Kubernetes API answers every second request with 429", 0.5),
    "watch-silence": FaultKind("the controllers' watches stay open and send nothing", 0.5),
    "watch-close": FaultKind("the controllers' watches are closed"),
    "compaction": FaultKind("the controllers' watches are reset and their history is gone"),
    "platform-outage": FaultKind("the platform's API cuts every connection", 1.0),
    "delete-secret": FaultKind("a quarter of the sessions' Secrets are deleted"),
    "stale-secret": FaultKind("in a quarter of the Secrets the first token is put back"),
    "new-sessions": FaultKind("a quarter as many new sessions begin"),
    "restart-session": FaultKind(
        "a quarter of the sessions stop, and begin again on dead tokens", 1.1
    ),
    "forged-pod": FaultKind("somebody labels pods of their own as sessions that are none"),
}

START_S = 10.0
"""Where no start is given; at most half of the run."""

_SHAPE = re.compile(
    r"(?P<name>[a-z-]+)(?:@(?P<start>\d+(?:\.\d+)?)(?:\+(?P<length>\d+(?:\.\d+)?))?)?"
)


@dataclass(frozen=True, slots=True)
class Chaos:
    """One fault of a run: seconds from the controllers' start, and for how long."""

    name: str
    start_s: float
    length_s: float

    def __str__(self) -> str:
        length = f"+{self.length_s:g}" if self.length_s else ""
        return f"{self.name}@{self.start_s:g}{length}"

    @property
    def end_s(self) -> float:
        return self.start_s + self.length_s


def parse_chaos(text: str, *, ttl_s: float, duration_s: float | None = None) -> Chaos:
    """Read one `--chaos` value.

    Args:
        ttl_s: Life of the tokens, seconds; what is not given is measured in it.
        duration_s: Length of the run, or None where a human ends it.
    Raises:
        SettingsError: One line that says what would be right.
    """
    found = _SHAPE.fullmatch(text.strip())
    if found is None:
        raise SettingsError(f"--chaos {text!r}: not of the form NAME[@START[+SECONDS]]; {_names()}")
    name = found["name"]
    if name not in KINDS:
        raise SettingsError(f"--chaos {name}: no such chaos; {_names()}")
    default_s = START_S if duration_s is None else min(START_S, duration_s / 2)
    start_s = default_s if found["start"] is None else float(found["start"])
    if duration_s is not None and start_s >= duration_s:
        raise SettingsError(f"--chaos {text}: begins after the run's end at {duration_s:g} s")
    given = found["length"]
    length_s = KINDS[name].length_ttl * ttl_s if given is None else float(given)
    return Chaos(name, start_s, length_s)


def _names() -> str:
    return f"the names are {', '.join(KINDS)}"
