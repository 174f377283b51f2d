"""Which failure waits how long, for what, and whether a human must hear of it (pure)."""

import math
from dataclasses import dataclass

from reconciler import backoff, errors
from reconciler.backoff import BackoffPolicy
from reconciler.errors import RemoteError
from reconciler.kube.status_errors import is_terminating

ISSUER = "issuer"
KUBE = "kube"
PLATFORM = "platform"

REFUSED = "issuer_refused"
"""Log event of the begin of a refusal by the issuer, which concerns the whole fleet."""

RIGHTS = "rights"
"""What waits here waits for a right in its namespace that the API server refuses."""


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """What becomes of a session whose run failed.

    `blocked_on` names the endpoint whose recovery wakes it early ("" = none); `event` is the log
    event for what somebody must mend ("" = nothing to say beyond the count).
    """

    policy: BackoffPolicy
    blocked_on: str = ""
    event: str = ""


_TRANSIENT = RetryDecision(backoff.TRANSIENT)
_CONFLICT = RetryDecision(backoff.CONFLICT)
_THROTTLED = RetryDecision(backoff.THROTTLED)
_GONE = RetryDecision(backoff.MISCONFIGURED)


LIFE_FRACTION = 0.25
"""A retry never waits for more than this part of what is left: fifteen in a row still fit into the
last seconds of a token."""

TAKEN_ATTEMPTS = 3
"""AlreadyExists so often, seconds apart, with nothing to see for our selector, is no race between a
create and its watch event: somebody took the Secret's labels."""


def classify(error: RemoteError, attempt: int) -> RetryDecision:
    """Class a failed request, the `attempt`-th in a row for its session; see `Verdict`."""
    if isinstance(error, errors.AlreadyExists):
        if attempt <= TAKEN_ATTEMPTS:
            return _CONFLICT
        return RetryDecision(backoff.MISCONFIGURED, event="secret_without_labels")
    if isinstance(error, errors.IssuerRefused):
        return RetryDecision(backoff.TRANSIENT, ISSUER, REFUSED)
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
        return RetryDecision(backoff.MISCONFIGURED, event="write_refused")
    if isinstance(error, errors.Forbidden):
        return RetryDecision(backoff.MISCONFIGURED, RIGHTS, "write_forbidden")
    if isinstance(error, errors.AuthorizerNotReady):
        return RetryDecision(backoff.STARTING, RIGHTS)
    if error.transient:
        return _TRANSIENT
    return RetryDecision(backoff.MISCONFIGURED, event="write_refused")


def max_retry_after_s(slack_s: float, left_s: float) -> float | None:
    """Return the longest wait before the next try, None for no bound.

    While there is slack, that bounds it, until a quarter of the life itself is the longer one: a
    slack that runs out must not end in a storm. Without slack the life bounds it: tokens that live
    no longer than the propagation allowance never have any, and their pods are touched.

    Args:
        slack_s: Seconds until the kubelet's own pace would be too slow; negative where it is.
        left_s: Seconds until the worst token ends that the pod may read; 0 or less is expired or
            unknown, which no haste saves.
    """
    if slack_s > 0:
        floor_s = LIFE_FRACTION * left_s if 0 < left_s < math.inf else 0.0
        return LIFE_FRACTION * max(slack_s, floor_s)
    return LIFE_FRACTION * left_s if 0 < left_s < math.inf else None


def is_replaced(error: RemoteError) -> bool:
    """Tell a 422 that means "another object has this name now" from a wrong one.

    Source: the API server answers a wrong `metadata.uid` in a patch with 422, "field is immutable".
    """
    return isinstance(error, errors.Invalid) and any(
        cause.field == "metadata.uid" for cause in error.causes
    )
