"""Who writes: never two fences open at once, never a write after another has taken the Lease."""

from collections.abc import Callable, Sequence

from reconciler.lab.apiserver.write_log import RESTORER, Commit, WriteLog
from reconciler.lab.demo.leader_terms import deposed_writes, leader_terms
from reconciler.lab.simulation.event_log import EventLog

ONE_FENCE = "one_open_gate"
NO_DEPOSED_WRITE = "no_deposed_write"


class SingleWriterCheck:
    """Judges every commit by the server's own account; a commit hook.

    Args:
        open_fences: Names the processes that may write at this moment.
    """

    def __init__(self, journal: EventLog, open_fences: Callable[[], Sequence[str]]) -> None:
        self.process = ""
        """Who took the Lease last."""
        self.changes_total = 0
        self.since_version = 0
        """The version at which it did."""
        self._journal = journal
        self._open_fences = open_fences
        self._ledger = WriteLog()

    def commit(self, commit: Commit) -> None:
        """Take in one commit."""
        ledger = self._ledger
        if commit.caller is RESTORER:
            return  # nothing is restored to before the last change of the Lease's holder
        ledger.record(commit)
        found = leader_terms(ledger.lease_turns)
        if found and found[-1].process != self.process:
            self.changes_total += bool(self.process)
            self.process, self.since_version = found[-1].process, commit.version
        for write in deposed_writes(found, ledger.signed_writes):
            self._journal.violate(NO_DEPOSED_WRITE, f"{write.process} at version {write.version}")
        ledger.signed_writes.clear()
        ledger.secret_writes.clear()
        if len(fences := self._open_fences()) > 1:
            self._journal.violate(ONE_FENCE, f"{' and '.join(fences)} may write")


def process_of(agent: str) -> str:
    """Return the process that a replica names in its user agent, "" for any other agent."""
    return agent.partition("(")[2].partition(")")[0].partition(" ")[0]
