"""Who writes: never two gates open at once, never a write after another has taken the Lease."""

from collections.abc import Callable, Sequence

from reconciler.lab.apiserver.ledger import Commit, Ledger
from reconciler.lab.reigns import deposed_writes, reigns
from reconciler.simulation.journal import Journal

ONE_GATE = "one_open_gate"
NO_DEPOSED_WRITE = "no_deposed_write"


class WriterChecker:
    """Judges every commit by the server's own account; a commit hook.

    Args:
        open_gates: Names the processes that may write at this moment.
    """

    def __init__(self, journal: Journal, open_gates: Callable[[], Sequence[str]]) -> None:
        self.process = ""
        """Who took the Lease last."""
        self.changes_total = 0
        self._journal = journal
        self._open_gates = open_gates
        self._ledger = Ledger()

    def commit(self, commit: Commit) -> None:
        """Take in one commit."""
        ledger = self._ledger
        ledger.record(commit)
        found = reigns(ledger.lease_turns)
        if found and found[-1].process != self.process:
            self.changes_total += bool(self.process)
            self.process = found[-1].process
        for write in deposed_writes(found, ledger.signed_writes):
            self._journal.violate(NO_DEPOSED_WRITE, f"{write.process} at version {write.version}")
        ledger.signed_writes.clear()
        ledger.secret_writes.clear()
        if len(gates := self._open_gates()) > 1:
            self._journal.violate(ONE_GATE, f"{' and '.join(gates)} may write")
