"""How urgent a run is, in four bands; a band is served before all with a greater number."""

from enum import IntEnum


class Band(IntEnum):
    """What is at stake; inside a band the slack decides."""

    EXPIRING = 1
    """The token has expired, or is inside the propagation allowance: a runner may fail now."""

    CHANGED = 2
    """New or changed pods: somebody waits for a first token."""

    STARTUP = 3
    """The startup resync: every running session once, none of them known to be in danger."""

    ROUTINE = 4
    """Renewals on the grid and the periodic resync: all of it can wait for its slack."""
