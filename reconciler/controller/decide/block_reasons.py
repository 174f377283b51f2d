"""Why a session gets no token: the reasons of plans with `Action.BLOCKED` (pure).

A write that is planned may still not happen: `write_errors` decides after a refusal,
`competing_writers` while another writer changes the Secret, `bulkhead` while the namespace's API
requests are slow, `reconcile/token_choice.py` if no token is better than the one in the Secret, and
`leadership/lease_fence.py` if this replica is not the leader.
"""

from enum import StrEnum


class BlockReason(StrEnum):
    """Why nothing is written for a session: `Plan.reason`, in logs, metrics, page and JSON."""

    PAUSED = "paused"
    NAME_TAKEN = "secret_name_taken"
    NOT_CONFIRMED = "not_confirmed"
    POD_LEAVING = "pod_leaving"


SENTENCES: dict[str, str] = {
    BlockReason.PAUSED: "paused by annotation: nothing is written until it is removed",
    BlockReason.NAME_TAKEN: "its Secret's name belongs to another session: nothing is written",
    BlockReason.NOT_CONFIRMED: "the platform has not confirmed it: nothing is written",
    BlockReason.POD_LEAVING: "its Secret is missing and its pod is being deleted: none is created",
}
"""What a person reads for each reason."""
