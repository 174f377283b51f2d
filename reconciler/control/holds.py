"""To whom nothing is written, and why, as the last run of each session found."""

from reconciler.control.attempt import Attempt
from reconciler.names import SessionKey


class Holds:
    """A witness; it holds no more than one word for each session that is held.

    A session that leaves without a run leaves its word behind; `keep` drops those.
    """

    def __init__(self) -> None:
        self._why: dict[SessionKey, str] = {}

    def note(self, attempt: Attempt) -> None:
        if attempt.outcome == "blocked":
            self._why[attempt.key] = attempt.reason
        elif attempt.outcome in ("refreshed", "kept", "failed", "forgotten"):
            self._why.pop(attempt.key, None)

    def of(self, key: SessionKey) -> str:
        """Return why nothing is written to a session, or ""."""
        return self._why.get(key, "")

    def keep(self, seen: set[SessionKey]) -> None:
        """Drop the words of all sessions but these."""
        for key in self._why.keys() - seen:
            del self._why[key]

    def __len__(self) -> int:
        return len(self._why)
