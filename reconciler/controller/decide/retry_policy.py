"""Which failure waits how long, for what, and whether a human must hear of it (pure)."""

import math
from dataclasses import dataclass

from reconciler import backoff, errors
from reconciler.backoff import Pace
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
class Verdict:
    """What becomes of a session whose run failed.

    `gate` names the endpoint whose recovery wakes it early ("" = none); `says` is the log event for
    what somebody must mend ("" = nothing to say beyond the count).
    """

    pace: Pace
    gate: str = ""
    says: str = ""


_TRANSIENT = Verdict(backoff.TRANSIENT)
_CONFLICT = Verdict(backoff.CONFLICT)
_THROTTLED = Verdict(backoff.THROTTLED)
_GONE = Verdict(backoff.MISCONFIGURED)


LIFE_FRACTION = 0.25
"""A retry never waits for more than this part of what is left: fifteen in a row still fit into the
last seconds of a token."""

TAKEN_ATTEMPTS = 3
"""AlreadyExists so often, seconds apart, with nothing to see for our selector, is no race between a
create and its watch event: somebody took the Secret's labels."""


def judge(error: RemoteError, attempt: int) -> Verdict:
    """Class a failed request, the `attempt`-th in a row for its session; see `Verdict`."""
    if isinstance(error, errors.AlreadyExists):
        if attempt <= TAKEN_ATTEMPTS:
            return _CONFLICT
        return Verdict(backoff.MISCONFIGURED, says="secret_without_labels")
    if isinstance(error, errors.IssuerRefused):
        return Verdict(backoff.TRANSIENT, ISSUER, REFUSED)
    if isinstance(error, errors.IssuerError):
        return Verdict(backoff.TRANSIENT, ISSUER)
    if isinstance(error, errors.PlatformError):
        return Verdict(backoff.TRANSIENT, PLATFORM)
    if isinstance(error, errors.Conflict):
        return _CONFLICT
    if isinstance(error, errors.TooManyRequests):
        return _THROTTLED
    if isinstance(error, errors.TransportError | errors.ServerError | errors.Unauthorized):
        return Verdict(backoff.TRANSIENT, KUBE)
    if isinstance(error, errors.NotFound) or is_terminating(error):
        return _GONE
    if isinstance(error, errors.Invalid) and is_replaced(error):
        return _CONFLICT
    if isinstance(error, errors.QuotaExceeded):
        return Verdict(backoff.THROTTLED, says="quota_exceeded")
    if isinstance(error, errors.Denied):
        return Verdict(backoff.MISCONFIGURED, says="write_refused")
    if isinstance(error, errors.Forbidden):
        return Verdict(backoff.MISCONFIGURED, RIGHTS, "write_forbidden")
    if isinstance(error, errors.AuthorizerNotReady):
        return Verdict(backoff.STARTING, RIGHTS)
    if error.transient:
        return _TRANSIENT
    return Verdict(backoff.MISCONFIGURED, says="write_refused")


def patience_s(slack_s: float, left_s: float) -> float | None:
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
