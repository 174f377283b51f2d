"""The state of one pod's token: the one definition for metrics, status page and commands (pure)."""

import enum
import math

from reconciler.clock import NEVER, EpochTime
from reconciler.controller.decide.annotations import TokenAnnotations
from reconciler.kube.api import ObjectMeta

SOON_S = 60.0
"""A refresh that is due within this is `due`; one that is late by more than this is `overdue`."""

SOON_FRACTION = 0.1
"""The same as a fraction of a token's life, for tokens so short that a minute is most of it."""


class TokenState(enum.StrEnum):
    """State of the token that a pod reads, the worst first. The value is the word that is shown."""

    EXPIRED = "expired"
    """The newest token that was written is past its expiry."""
    NO_SECRET = "no_secret"  # noqa: S105 - a state
    """The Secret does not exist, or does not have the label of its session."""
    NO_TOKEN = "no_token"  # noqa: S105 - a state
    """The Secret exists and holds no token."""
    NAME_TAKEN = "name_taken"
    """The Secret of that name belongs to another session."""
    UNREADABLE = "unreadable"
    """The annotations give no expiry, or one that cannot be true."""
    FOREIGN_WRITER = "foreign_writer"
    """Another writer replaced our token, so that its expiry is not known."""
    UNCONFIRMED = "unconfirmed"
    """Our annotations are there without the proof that the platform confirmed the session: the
    proof was removed, or another writer set the annotations. Nothing is written until the platform
    confirms the session."""
    UNMANAGED = "unmanaged"
    """We have never written the token, so that its expiry is not known."""
    UNKNOWN = "unknown"
    """The controller has not listed the namespace's Secrets yet."""
    EXPIRING = "expiring"
    """Valid, and what is left may be too short for a new token to reach the pod in time."""
    OVERDUE = "overdue"
    """Valid, and its scheduled refresh is late."""
    PAUSED = "paused"
    """Valid; an annotation stops its refreshes."""
    DUE = "due"
    """A refresh is requested, in progress, or scheduled within `SOON_S`."""
    NO_EXPIRY = "no_expiry"
    """Our token has no expiry."""
    OK = "ok"
    """Valid, and its next refresh is scheduled."""


HEALTHY = frozenset({TokenState.OK, TokenState.DUE, TokenState.NO_EXPIRY})
"""States in which there is nothing to do."""

NOTHING_TO_READ = (TokenState.NO_SECRET, TokenState.NO_TOKEN, TokenState.NAME_TAKEN)
"""States in which the pod has no token."""

UNKNOWN_EXPIRY = (
    TokenState.UNREADABLE, TokenState.FOREIGN_WRITER, TokenState.UNMANAGED, TokenState.UNKNOWN,
)  # fmt: skip
"""States in which the pod may have a token with an unknown expiry."""


def written_state(
    session_id: str, found: ObjectMeta | None, token: TokenAnnotations | None, *, listed: bool
) -> TokenState:
    """Return the state as far as the objects decide it; `OK` if the rest depends on the time.

    Args:
        found: The object of the Secret's name, of this session or another one.
        token: Its annotations; None where it is not this session's Secret.
        listed: Whether the namespace's Secrets have been listed.
    """
    if found is None:
        return TokenState.NO_SECRET if listed else TokenState.UNKNOWN
    if not found.session_id:
        return TokenState.NO_SECRET
    if found.session_id != session_id or token is None:
        return TokenState.NAME_TAKEN
    if not token.is_ours:
        if not token.writer:
            return TokenState.NO_TOKEN
        return TokenState.FOREIGN_WRITER if token.refreshed_by else TokenState.UNMANAGED
    return TokenState.UNREADABLE if token.problem else TokenState.OK


def state_at(
    now_s: EpochTime,
    written: TokenState,
    *,
    expires_s: EpochTime | None,
    refresh_at_s: EpochTime | None,
    allowance_s: float,
    soon_s: float,
    confirmed: bool,
    paused: bool,
    requested: bool,
) -> TokenState:
    """Return the state at an instant. Instants are epoch seconds in the issuer's time.

    Args:
        written: The result of `written_state`.
        expires_s: None where it is not known, `math.inf` for a token without an expiry.
        refresh_at_s: When the next refresh is scheduled, None where none is.
        allowance_s: The remaining life below which a token is expiring.
        soon_s: The result of `soon_s`.
        confirmed: The platform has confirmed the session, as far as the caller can know.
        requested: A refresh is requested by annotation.
    """
    if written is not TokenState.OK and written is not TokenState.UNREADABLE:
        return written
    if not confirmed:
        return TokenState.UNCONFIRMED
    if written is TokenState.UNREADABLE or expires_s is None:
        return TokenState.UNREADABLE
    if expires_s <= now_s:
        return TokenState.EXPIRED
    if paused:
        return TokenState.PAUSED
    if expires_s - now_s < allowance_s:
        return TokenState.EXPIRING
    late_s = -math.inf if refresh_at_s is None else now_s - refresh_at_s
    if late_s > soon_s:
        return TokenState.OVERDUE
    if requested or late_s > -soon_s:
        return TokenState.DUE
    return TokenState.NO_EXPIRY if expires_s == NEVER else TokenState.OK


def soon_s(issued_s: EpochTime, expires_s: EpochTime) -> float:
    """Return how far from its scheduled time a refresh is `due`, in seconds."""
    return min(SOON_S, SOON_FRACTION * (expires_s - issued_s))
