"""What an error of a write (a 409, a 403, a 5xx) causes: a wait, a read, a log line (pure).

The same for an error of a request that the write needs first: of the issuer, or of the platform.
"""

import math

import msgspec
from msgspec.structs import replace

from reconciler import backoff, errors
from reconciler.backoff import BackoffPolicy
from reconciler.errors import RemoteError
from reconciler.kube.status_errors import is_terminating

ISSUER = "issuer"
KUBE = "kube"
PLATFORM = "platform"

ISSUER_REFUSED = "issuer_refused"
"""Log event at the start of a refusal by the issuer, which concerns the whole fleet."""

PERMISSIONS = "rights"
"""Sessions blocked on this wait for a permission in their namespace."""


class RetryDecision(msgspec.Struct, frozen=True):
    """The retry of a session after a failed run.

    `blocked_on` is the endpoint that wakes it early when it recovers ("" = none); `event` is the
    log event of a fault that a person must fix ("" = only counted).
    """

    policy: BackoffPolicy
    blocked_on: str = ""
    event: str = ""


_TRANSIENT = RetryDecision(backoff.TRANSIENT)
_CONFLICT = RetryDecision(backoff.CONFLICT)
_THROTTLED = RetryDecision(backoff.THROTTLED)
_GONE = RetryDecision(backoff.MISCONFIGURED)


MAX_WAIT_FRACTION = 0.25
"""A retry never waits for more than this fraction of the remaining time: fifteen consecutive ones
still fit into the last seconds of a token."""

DENIED_FRACTION = 0.5
"""The same for a denied write: half as many attempts, each of which is in an audit log."""

DENIED_PROBE_S = 2.0
"""All sessions that one webhook or policy denies try every so many seconds, or half of it, but not
more often: one of them that is accepted wakes others, and each that is denied fills the audit log.
It is the longest wait between the probes of an endpoint that is down: `net.circuit_breaker`."""

DENIED_URGENT_S = 0.2
"""The same while their tokens expire. Tokens of one issue expire at one instant, and the last tries
of all sessions before it would be made at one instant, too."""

DENIED_LEAST_S = 1.0
"""The bound of a denied write's wait is not below this: a token of 900 s then has some five
attempts in its last 30 s."""

DENIED_FOR_LONG = 1 / 24
"""A session whose token has expired waits for no more than this fraction of the time for which it
has been without one: what the wait adds to its expired-token seconds is at most 4 %. Below twelve
minutes that is less than the usual wait, which applies. One denial without end is 600 tries on its
first day and 400 on each further one, in place of 3,800."""

DENIED_FOR_LONG_S = 300.0
"""Longest such wait."""

MAX_CREATE_CONFLICTS = 3
"""This many AlreadyExists, seconds apart, with no object for our selector, are not a race between a
create and its watch event: the Secret's labels were removed."""


STALE_CONFLICTS = 3
"""Failures in a row, a conflict the last, after which the Secret is read again: the watch should
have brought its version seconds ago."""


def classify(error: RemoteError, attempt: int) -> RetryDecision:
    """Return the retry decision for the `attempt`-th consecutive failure of a session."""
    if isinstance(error, errors.AlreadyExists):
        if attempt <= MAX_CREATE_CONFLICTS:
            return _CONFLICT
        return RetryDecision(backoff.MISCONFIGURED, event="secret_without_labels")
    if isinstance(error, errors.IssuerRefused):
        return RetryDecision(backoff.TRANSIENT, ISSUER, ISSUER_REFUSED)
    if isinstance(error, errors.IssuerError):
        return RetryDecision(backoff.TRANSIENT, ISSUER)
    if isinstance(error, errors.PlatformError):
        return RetryDecision(backoff.TRANSIENT, PLATFORM)
    if isinstance(error, errors.Conflict):
        return _CONFLICT
    if isinstance(error, errors.TooManyRequests):
        return _THROTTLED
    if isinstance(error, errors.TransportError | errors.ServerError | errors.Unauthorized):
        return RetryDecision(backoff.TRANSIENT, KUBE)
    if isinstance(error, errors.NotFound) or is_terminating(error):
        return _GONE
    if isinstance(error, errors.Invalid) and is_replaced(error):
        return _CONFLICT
    if isinstance(error, errors.QuotaExceeded):
        return RetryDecision(backoff.THROTTLED, event="quota_exceeded")
    if isinstance(error, errors.AdmissionDenied):
        return RetryDecision(backoff.DENIED, event="write_refused")
    if isinstance(error, errors.Forbidden):
        return RetryDecision(backoff.DENIED, PERMISSIONS, "write_forbidden")
    if isinstance(error, errors.AuthorizerNotReady):
        return RetryDecision(backoff.STARTING, PERMISSIONS)
    if error.transient:
        return _TRANSIENT
    return RetryDecision(backoff.DENIED, event="write_refused")


def needs_fresh_read(error: RemoteError, attempt: int) -> bool:
    """Return whether the `attempt`-th error in a row shows that the store has an old Secret."""
    if isinstance(error, errors.NotFound):
        return True
    is_stale = isinstance(error, errors.Conflict) or is_replaced(error)
    return is_stale and attempt >= STALE_CONFLICTS


def max_retry_after_s(slack_s: float, left_s: float) -> float | None:
    """Return the longest wait before the next try, None for no limit.

    While there is slack, a quarter of it is the limit, but not less than a quarter of the remaining
    lifetime, so that the end of the slack does not cause many requests. Without slack the lifetime
    limits it: tokens that live no longer than the propagation allowance never have slack, and their
    pods are touched.

    Args:
        slack_s: Seconds until the kubelet's next sync would be too late; negative if it is.
        left_s: Seconds until the worst token that the pod may read expires; 0 or less means
            expired or unknown: then a faster retry does not help.
    """
    if slack_s > 0:
        floor_s = MAX_WAIT_FRACTION * left_s if 0 < left_s < math.inf else 0.0
        return MAX_WAIT_FRACTION * max(slack_s, floor_s)
    return MAX_WAIT_FRACTION * left_s if 0 < left_s < math.inf else None


def max_wait_s(policy: BackoffPolicy, slack_s: float, left_s: float) -> float | None:
    """Return the bound of a wait after a failure of this class, None for no bound.

    A denied write has its own: `denied_wait_s`.

    Args: See `max_retry_after_s`.
    """
    if policy is backoff.MISCONFIGURED:
        return None
    return max_retry_after_s(slack_s, left_s)


def denied_wait_s(
    attempt: int,
    sessions: int,
    *,
    slack_s: float,
    left_s: float,
    rand: float,
    pod_age_s: float = math.inf,
) -> float:
    """Return the wait after the `attempt`-th denial in a row.

    The sessions share their tries. While a token lives, its session waits for no more than half of
    what is left, unless that would be too many tries of all together. After its expiry the tries
    become rarer, from one in 15-30 s to one in 150-300 s (`DENIED_FOR_LONG`).

    Args:
        sessions: How many sessions the same denier denies, this one included; 1 or more.
        slack_s, left_s: See `max_retry_after_s`.
        rand: Random number in [0, 1).
        pod_age_s: Age of the session's pod; a new one has been without a token for no longer.
    """
    share_s = DENIED_PROBE_S * sessions
    base_s = max(backoff.DENIED.base_s, share_s)
    cap_s = max(backoff.DENIED.cap_s, _rare_s(attempt, max(left_s, -pod_age_s)), share_s)
    policy = replace(backoff.DENIED, base_s=base_s, cap_s=cap_s)
    wait_s = policy.delay_s(attempt, fraction_of_life_s=None, rand=rand)
    bound_s = max_retry_after_s(slack_s, left_s)
    if bound_s is None:
        return wait_s
    half_s = DENIED_FRACTION / MAX_WAIT_FRACTION * bound_s
    longest_s = max(half_s, DENIED_LEAST_S, DENIED_URGENT_S * sessions)
    # Not the bound itself: it is the same for all tokens of one issue.
    return min(wait_s, (policy.least + (1 - policy.least) * rand) * longest_s)


def _rare_s(attempt: int, left_s: float) -> float:
    """Return the widest window of a session that has long been denied, 0.0 for none.

    For how long it has been denied follows from its tries, whose shortest waits are added up. An
    expiry alone does not show that: a session with an expired or an unknown one may be new.
    """
    denied_s = attempt * backoff.DENIED.least * backoff.DENIED.cap_s
    return min(DENIED_FOR_LONG * max(0.0, min(-left_s, denied_s)), DENIED_FOR_LONG_S)


def is_replaced(error: RemoteError) -> bool:
    """Return whether a 422 means "another object has this name now".

    Source: the API server answers a wrong `metadata.uid` in a patch with 422, "field is immutable".
    """
    return isinstance(error, errors.Invalid) and any(
        cause.field == "metadata.uid" for cause in error.causes
    )
