"""Which token to write for a plan: a requested one, an available one, or none."""

from reconciler.clock import LONG_AGO, Instant
from reconciler.controller.decide.annotations import TokenAnnotations
from reconciler.controller.decide.refresh_plan import MIN_REMAINING, Plan
from reconciler.errors import IssuerError
from reconciler.tokens.source import TokenSource
from reconciler.tokens.token import Token

EQUAL_EXPIRY_REASONS = frozenset({"startup_resync", "requested"})
"""Reasons for which a token with the same expiry is also written, since these promise a write. None
of them moves an expiry backwards."""

NEARLY_NEW = 0.98
"""Remaining life, as a fraction, that satisfies a person's request: a thousand requests at once
share a few tokens instead of a thousand requests to the issuer."""


def is_improvement(token: Token, annotations: TokenAnnotations | None, reason: str) -> bool:
    """Return whether writing `token` is allowed: an expiry that we wrote never moves backwards.

    The exception is a static token that the operator replaced by one that expires earlier.
    """
    if annotations is None or annotations.expires_s is None or reason == "token_replaced":
        return True
    if reason in EQUAL_EXPIRY_REASONS:
        return token.expires_s >= annotations.expires_s
    return token.expires_s > annotations.expires_s


def best_available(source: TokenSource, plan: Plan, *, term_began_at: Instant) -> Token | None:
    """Return what `choose` would return without a request to the issuer, else None."""
    since_at = _since_at(plan.annotations, term_began_at)
    token = source.best_available(min_remaining=_wanted(plan), since_at=since_at)
    return (
        token
        if token is not None and is_improvement(token, plan.annotations, plan.reason)
        else None
    )


def _wanted(plan: Plan) -> float:
    return NEARLY_NEW if plan.reason == "requested" else MIN_REMAINING


def _since_at(annotations: TokenAnnotations | None, term_began_at: Instant) -> Instant:
    """Return the least age of a token to write, as the instant since when it was requested.

    A token of ours whose expiry nothing shows may be the previous leader's last one. Every token of
    this term expires later than that.
    """
    is_hidden = annotations is not None and annotations.is_ours and bool(annotations.problem)
    return term_began_at if is_hidden else LONG_AGO


async def choose(source: TokenSource, plan: Plan, *, term_began_at: Instant) -> Token | None:
    """Return a token worth writing, or None if no token is better than the one in the Secret.

    If the issuer is unreachable, the best available token is used, even with a short life, if it
    is better.

    Args:
        term_began_at: When this replica began to lead, monotonic. Its standby token may be older
            than what the previous leader wrote last: the startup resync then requests one that is
            younger than the term, once for all Secrets. So does a write to a Secret of ours with an
            unknown expiry.
    Raises:
        IssuerError: No token came, and no available one is better.
    """
    wanted = _wanted(plan)
    try:
        since_at = _since_at(plan.annotations, term_began_at)
        token = await source.get(min_remaining=wanted, since_at=since_at)
    except IssuerError:
        best = source.best()
        if best is not None and is_improvement(best, plan.annotations, plan.reason):
            return best
        raise
    if is_improvement(token, plan.annotations, plan.reason):
        return token
    if plan.reason != "startup_resync":
        return None
    try:
        token = await source.get(min_remaining=wanted, since_at=term_began_at)
    except IssuerError:
        return None  # the Secret's token outlives every available one: the write can wait
    return token if is_improvement(token, plan.annotations, plan.reason) else None
