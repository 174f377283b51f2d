"""One writer at a time: no two open fences, and no write after another process holds the Lease."""

from collections.abc import Callable, Sequence

from reconciler.lab.apiserver.write_log import RESTORER, Commit, WriteLog
from reconciler.lab.demo.leader_terms import leader_terms, writes_without_leadership
from reconciler.lab.simulation.event_log import EventLog

ONE_FENCE = "one_open_fence"
NO_WRITE_WITHOUT_LEADERSHIP = "no_write_without_leadership"


class SingleWriterCheck:
    """Checks every commit against the holders of the Lease; a commit hook.

    Args:
        open_fences: Returns the processes that may write now.
    """

    def __init__(self, event_log: EventLog, open_fences: Callable[[], Sequence[str]]) -> None:
        self.process = ""
        """The last process that acquired the Lease."""
        self.changes_total = 0
        self.since_version = 0
        """The version at which that process acquired it."""
        self._event_log = event_log
        self._open_fences = open_fences
        self._write_log = WriteLog()

    def commit(self, commit: Commit) -> None:
        """Take in one commit."""
        write_log = self._write_log
        if commit.caller is RESTORER:
            return  # no restore goes back beyond the last change of the Lease's holder
        write_log.record(commit)
        terms = leader_terms(write_log.holder_changes)
        if terms and terms[-1].process != self.process:
            self.changes_total += bool(self.process)
            self.process, self.since_version = terms[-1].process, commit.version
        for write in writes_without_leadership(terms, write_log.process_writes):
            what = f"{write.process} at version {write.version}"
            self._event_log.add_violation(NO_WRITE_WITHOUT_LEADERSHIP, what)
        write_log.process_writes.clear()
        write_log.secret_writes.clear()
        if len(fences := self._open_fences()) > 1:
            self._event_log.add_violation(ONE_FENCE, f"{' and '.join(fences)} may write")


def process_of(agent: str) -> str:
    """Return the process that a replica names in its user agent, "" for any other agent."""
    return agent.partition("(")[2].partition(")")[0].partition(" ")[0]
