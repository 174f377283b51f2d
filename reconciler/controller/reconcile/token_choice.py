"""Which token to write for a plan: asked for, at hand, or none that improves what is there."""

from reconciler.controller.decide.annotations import TokenAnnotations
from reconciler.controller.decide.plan import Plan
from reconciler.controller.decide.refresh_times import MIN_REMAINING
from reconciler.errors import IssuerError
from reconciler.tokens.source import TokenSource
from reconciler.tokens.token import Token

EQUAL_EXPIRY_REASONS = frozenset({"startup_resync", "requested"})
"""Reasons for which a token that ends at the same second is written too: the promise is a write.
None of them moves an expiry backwards."""

NEARLY_NEW = 0.98
"""Life left, as a fraction, that satisfies a human's request: a thousand requests at once share a
few tokens instead of asking the issuer a thousand times."""


def is_improvement(token: Token, annotations: TokenAnnotations | None, reason: str) -> bool:
    """Tell whether writing `token` is allowed: an expiry that we wrote never moves backwards.

    Unless the operator took that token back, and put one that ends sooner in its place.
    """
    if annotations is None or annotations.expires_s is None or reason == "token_replaced":
        return True
    if reason in EQUAL_EXPIRY_REASONS:
        return token.expires_s >= annotations.expires_s
    return token.expires_s > annotations.expires_s


def best_available(source: TokenSource, plan: Plan) -> Token | None:
    """Return what `obtain` would, where it would not ask the issuer; else None."""
    token = source.best_available(min_remaining=_wanted(plan))
    return token if token is not None and is_improvement(token, plan.facts, plan.reason) else None


def _wanted(plan: Plan) -> float:
    return NEARLY_NEW if plan.reason == "requested" else MIN_REMAINING


async def choose(source: TokenSource, plan: Plan, *, term_began_at: float) -> Token | None:
    """Return a token worth writing, or None where nothing that can be had improves what is there.

    With the issuer away the best token at hand is taken, however short its life, if it improves.

    Args:
        term_began_at: When this replica began to lead, on the monotonic clock. Its spare may be
            older than what the leader before it wrote last: the startup resync then asks for one
            that is younger than the term, once for all Secrets.
    Raises:
        IssuerError: No token can be had and none at hand improves.
    """
    wanted = _wanted(plan)
    try:
        token = await source.get(min_remaining=wanted)
    except IssuerError:
        best = source.best()
        if best is not None and is_improvement(best, plan.facts, plan.reason):
            return best
        raise
    if is_improvement(token, plan.facts, plan.reason):
        return token
    if plan.reason != "startup_resync":
        return None
    try:
        token = await source.get(min_remaining=wanted, since_at=term_began_at)
    except IssuerError:
        return None  # what is there outlives all that is at hand: the write can wait
    return token if is_improvement(token, plan.facts, plan.reason) else None
