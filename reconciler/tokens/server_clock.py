"""The issuer's time, estimated from sources that may be wrong (pure).

The steps are those of docs/design/issuer-time.md. Instants of the issuer are epoch seconds; every
estimate is an offset: the issuer's time less our monotonic clock.
"""

import enum
import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from reconciler.clock import NEVER, ClockOffset, EpochTime, Instant

RESOLUTION_S = 1.0
"""`iat` and Date are in whole seconds: the true instant is up to one second later."""

SAME_ISSUER_S = 2.0
"""Claims of one issuer that are no further apart mean the same time: synchronised nodes of an
issuer, a rounded `iat`, a clock that is slewed."""

DRIFT = 0.0006
"""Largest lasting error of our monotonic clock's rate: an NTP client may correct it by 500 ppm, and
without one a crystal is off by 100. Tokens that come hours apart differ by so much. Source: the
kernel's timex.h, MAXFREQ."""

SAME_TIME_S = 5.0
"""Clocks of different machines that are no further apart agree."""

PROOF = 3
"""Consecutive tokens that make a proof. Two from a cache may agree by chance; one may come from the
only node of an issuer with a wrong clock."""

MEMORY_S = 600.0
"""Older observations are dropped: crystals drift by up to 100 ppm, 0.06 s in ten minutes, and
would slowly make narrow bounds wrong."""

MAX_SAMPLES = 64
"""Most observations that are kept; at one a second they would cover a minute, which is enough."""


class Bounds(NamedTuple):
    """The issuer's time less our monotonic clock is between these two, in seconds."""

    low_s: ClockOffset
    high_s: ClockOffset

    @property
    def middle_s(self) -> ClockOffset:
        return self.low_s + (self.high_s - self.low_s) / 2


class TimeSource(enum.Enum):
    """A source of the issuer's time; the value is its name in logs and metrics."""

    TOKEN = "token"  # noqa: S105 - a source's name
    EXPIRES_IN = "expires_in"
    ISSUER_DATE = "issuer_date"
    API_SERVER_DATE = "api_server_date"
    WALL_CLOCK = "wall_clock"
    MEMORY = "memory"


PRECEDENCE = (
    TimeSource.EXPIRES_IN,
    TimeSource.TOKEN,
    TimeSource.MEMORY,
    TimeSource.ISSUER_DATE,
    TimeSource.API_SERVER_DATE,
    TimeSource.WALL_CLOCK,
)
"""Precedence among claims with equally many supporters: the issuer's own claims before any header,
and the estimate so far before a clock that contradicts it."""


class TokenTimes(msgspec.Struct, frozen=True):
    """The times in one response of the issuer.

    Args:
        issued_s: The token's `iat`, or None.
        expires_s: The token's `exp`, or None.
        expires_in_s: The response's `expires_in`, or None.
        sent_at: When the request started, monotonic.
        received_at: When the response's headers arrived, monotonic.
        token_id: Differs for different tokens; it is of no use outside this process.
    """

    issued_s: EpochTime | None
    expires_s: EpochTime | None
    expires_in_s: float | None
    sent_at: Instant
    received_at: Instant
    token_id: int


class ClockSample(msgspec.Struct, frozen=True):
    """One token's claim, as it was first received.

    Args:
        issued_s: Its `iat`.
        floor_s: It was issued already: the offset is no less.
        ceiling_s: It has not expired yet: the offset is less; infinite for a token without `exp`.
        bounds: The offset, if it was issued for this request or the response has its age.
        at: When it was received, monotonic.
        token_id: As in `TokenTimes`.
        is_refused: By the estimate it had expired when it came last.
    """

    issued_s: EpochTime
    floor_s: ClockOffset
    ceiling_s: ClockOffset
    bounds: Bounds
    at: Instant
    token_id: int
    is_refused: bool = False

    def bounds_at(self, now_at: Instant) -> Bounds:
        """Return the offset by now: our clock may have drifted since."""
        return _drifted(self.bounds, now_at - self.at)


class ClockEstimate(msgspec.Struct, frozen=True):
    """The issuer's time: `proven` by `PROOF` consecutive tokens, or voted from `source`."""

    bounds: Bounds
    source: TimeSource
    proven: bool


class ServerClock:
    """Weighs the time sources of each response; has no clock and sends no request."""

    def __init__(self) -> None:
        self._samples: deque[ClockSample] = deque(maxlen=MAX_SAMPLES)
        """Tokens of different seconds, the latest first, each as it was first received."""
        self._floor_s = ClockOffset(-math.inf)
        self._proven_at: Instant = NEVER
        self._contradicting: ClockSample | None = None
        """The youngest of the tokens that contradict what earlier ones have proven."""
        self.estimate: ClockEstimate | None = None
        """None until the first response."""

    @property
    def needs_another(self) -> bool:
        """True if the latest tokens contradict what earlier ones have proven.

        Another response, a second later, distinguishes a clock that was stepped (its token agrees
        with the latest one) from a cache (the same token) and from one wrong node of the issuer
        (its token agrees with what was proven).
        """
        return self._contradicting is not None

    def observe(self, response: TokenTimes, others: Mapping[TimeSource, Bounds]) -> Bounds:
        """Record one response; return the issuer's time that applies to its token.

        Args:
            others: What headers and clocks claim at this moment.
        """
        claims = claims_of(response)
        sample = self.sample_of(response, claims, others)
        is_repeated = sample is not None and self.is_repeated(sample)
        if sample is not None:
            self._remember(sample)
        self.estimate, judged = self._estimate(response, claims, others, sample)
        self._note_refusal(response, judged)
        if self.are_too_many_refused():
            self._floor_s = max(each.floor_s for each in self._latest())
            self.estimate, self._contradicting = self._at_floor(), None
            judged = self.estimate.bounds
            self._note_refusal(response, judged)
        if is_repeated:
            self._contradicting = self._contradicting or sample
            return self.settle(judged)
        self._contradicting = None if sample is None else self._find_contradiction(sample)
        return judged

    def settle(self, judged: Bounds) -> Bounds:
        """Move up to what the youngest token proves: another request has brought nothing else.

        No token is issued in the future. If this one would be, what was proven is no longer true,
        or one node of the issuer is ahead; to be ahead with it costs writes, not tokens.

        Args:
            judged: What `observe` returned; it is returned again if the estimate does not move.
        """
        youngest, self._contradicting = self._contradicting, None
        if self.estimate is None or youngest is None:
            return judged
        if not self.is_below(self.estimate.bounds, youngest):
            return judged
        self.estimate = ClockEstimate(youngest.bounds, TimeSource.TOKEN, proven=False)
        return youngest.bounds

    def sample_of(
        self,
        response: TokenTimes,
        claims: Mapping[TimeSource, Bounds],
        others: Mapping[TimeSource, Bounds],
    ) -> ClockSample | None:
        """Return the token's claim of the issuer's time, None for one without `iat`.

        By `expires_in` it may not be newly issued. The claim with more support counts, and
        `expires_in` if the support is equal: it makes the token older, not younger.
        """
        plain = claims.get(TimeSource.TOKEN)
        if plain is None or response.issued_s is None:
            return None
        by_expires_in = claims.get(TimeSource.EXPIRES_IN, plain)
        known = dict(others)
        if self.estimate is not None:
            known[TimeSource.MEMORY] = self.estimate.bounds
        bounds = plain if _support(plain, known) > _support(by_expires_in, known) else by_expires_in
        ends_s = NEVER if response.expires_s is None else response.expires_s
        ceiling_s = ends_s - response.received_at
        return ClockSample(
            response.issued_s,
            plain.low_s,
            ceiling_s,
            bounds,
            response.received_at,
            response.token_id,
        )

    def is_repeated(self, sample: ClockSample) -> bool:
        """Return whether this token was returned before, by a cache before the issuer."""
        return any(
            sample.token_id == seen.token_id and _is_earlier(sample, seen) for seen in self._samples
        )

    def are_too_many_refused(self) -> bool:
        """Return whether three different consecutive tokens are refused by the estimate.

        They have not all expired, so that what the youngest of them proves decides on the third.
        """
        latest = self._latest()
        return len(latest) == PROOF and all(each.is_refused for each in latest)

    def is_below(self, bounds: Bounds, sample: ClockSample) -> bool:
        """Return whether by this estimate a token would have been issued in the future."""
        return sample.floor_s - bounds.high_s > SAME_ISSUER_S

    def is_proof(self, run: list[ClockSample]) -> bool:
        """Return whether tokens that agree prove the time: enough of them, of different seconds."""
        return len({sample.issued_s for sample in run}) >= PROOF

    def vote(self, claims: Mapping[TimeSource, Bounds]) -> ClockEstimate:
        """Return the claim that most others support; of equals the first in `PRECEDENCE`.

        `expires_in` and the token come in one response: where they agree they are one source.
        """
        one = dict(claims)
        if TimeSource.TOKEN in one and TimeSource.EXPIRES_IN in one:
            del one[TimeSource.TOKEN]
        ranked = [source for source in PRECEDENCE if source in one]
        chosen = max(ranked, key=lambda source: _support(one[source], one))
        return ClockEstimate(one[chosen], chosen, proven=False)

    def _find_contradiction(self, sample: ClockSample) -> ClockSample | None:
        """Return the token that needs another response.

        A slow response may agree with both sides and decides nothing. One that agrees with what was
        proven, and not with the token before it, shows that one node is wrong.
        """
        before = self._contradicting
        if before is not None and apart_s(before.bounds, sample.bounds) > SAME_ISSUER_S:
            before = None
        if not self._contradicts(sample):
            return before if before is not None and self._contradicts(before) else None
        return sample if before is None else max(before, sample, key=lambda each: each.floor_s)

    def _contradicts(self, sample: ClockSample) -> bool:
        """Return whether a token and what earlier ones have proven cannot both be true."""
        estimate = self.estimate
        if estimate is not None and estimate.proven:
            proven = _drifted(estimate.bounds, sample.at - self._proven_at)
            return apart_s(sample.bounds, proven) > SAME_ISSUER_S
        return self._floor_s - sample.bounds.high_s > SAME_ISSUER_S

    def _remember(self, sample: ClockSample) -> None:
        """Keep a token's claim; a repeated token is not another token.

        Its first receipt proves the most: at each later one it is older. After a step back of the
        issuer another token may be of the same second as an earlier one, which is dropped. What
        earlier tokens prove is dropped if by it the latest ones had all expired: the issuer was
        stepped back.
        """
        self._floor_s = max(self._floor_s, sample.floor_s)
        for index, seen in enumerate(self._samples):
            if sample.token_id != seen.token_id and _is_earlier(sample, seen):
                del self._samples[index]
                break
            if seen.issued_s == sample.issued_s:
                self._samples[index] = replace(seen, bounds=intersect([seen.bounds, sample.bounds]))
                return
        while (
            self._samples
            and sample.at - self._samples[-1].at > MEMORY_S
            and len(self._samples) >= PROOF
        ):
            self._samples.pop()
        self._samples.appendleft(sample)
        if self._floor_s >= self._ceiling_s():
            self._floor_s = max(each.floor_s for each in self._latest())

    def _note_refusal(self, response: TokenTimes, judged: Bounds) -> None:
        """Record whether a token had expired when it came now."""
        for index, seen in enumerate(self._samples):
            if seen.issued_s == response.issued_s:
                self._samples[index] = replace(seen, is_refused=_has_expired(response, judged))

    def _latest(self) -> list[ClockSample]:
        return list(self._samples)[:PROOF]

    def _ceiling_s(self) -> ClockOffset:
        """Return the offset's upper limit: the latest tokens had not all expired on arrival."""
        latest = self._latest()
        return (
            max(each.ceiling_s for each in latest)
            if len(latest) == PROOF
            else ClockOffset(math.inf)
        )

    def _at_floor(self) -> ClockEstimate:
        """Return the earliest time by which no token was issued in the future."""
        bounds = Bounds(self._floor_s, self._floor_s + RESOLUTION_S)
        return ClockEstimate(bounds, TimeSource.TOKEN, proven=False)

    def is_possible(self, bounds: Bounds) -> bool:
        """Return whether a claim has no token of the future, and not only expired ones."""
        return self._floor_s - bounds.high_s <= SAME_ISSUER_S and bounds.low_s < self._ceiling_s()

    def _estimate(
        self,
        response: TokenTimes,
        claims: Mapping[TimeSource, Bounds],
        others: Mapping[TimeSource, Bounds],
        sample: ClockSample | None,
    ) -> tuple[ClockEstimate | None, Bounds]:
        run = agreeing(self._samples)
        if sample is not None and self.is_proof(run):
            self._floor_s = min(self._floor_s, max(each.floor_s for each in run))
            self._proven_at = run[0].at
            proven = ClockEstimate(youngest(run), TimeSource.TOKEN, proven=True)
            return proven, proven.bounds
        if (
            self.estimate is not None
            and self.estimate.proven
            and self.estimate.bounds.low_s < self._ceiling_s()
        ):
            return self.estimate, self.estimate.bounds
        known = dict(others) | dict(claims)
        if sample is not None:
            known[TimeSource.EXPIRES_IN] = sample.bounds
        if self.estimate is not None:
            known[TimeSource.MEMORY] = self.estimate.bounds
        possible = {source: bounds for source, bounds in known.items() if self.is_possible(bounds)}
        at_floor = self._at_floor()
        voted = self.vote(possible) if possible else at_floor
        if not _has_expired(response, voted.bounds):
            return voted, voted.bounds
        is_kept = self.estimate is None or self.is_possible(self.estimate.bounds)
        return (self.estimate if is_kept else at_floor), voted.bounds


def _is_earlier(sample: ClockSample, seen: ClockSample) -> bool:
    """Return whether tokens of one second name different times, this one the earlier time."""
    return sample.issued_s == seen.issued_s and sample.bounds.high_s < seen.bounds.low_s


def claims_of(response: TokenTimes) -> dict[TimeSource, Bounds]:
    """Return the claims of a response, by source.

    The token claims to have been issued between sending and receipt; `expires_in` claims that so
    much of its lifetime is left. An `expires_in` beyond the whole lifetime adds nothing to the
    token.
    """
    claims = {}
    if response.issued_s is not None:
        claims[TimeSource.TOKEN] = bounds_of(
            response.issued_s, response.sent_at, response.received_at
        )
    if response.expires_s is not None and response.expires_in_s is not None:
        then_s = response.expires_s - response.expires_in_s
        if response.issued_s is not None:
            then_s = max(then_s, response.issued_s)
        claims[TimeSource.EXPIRES_IN] = bounds_of(then_s, response.sent_at, response.received_at)
    return claims


def bounds_of(date_s: EpochTime, sent_at: Instant, received_at: Instant) -> Bounds:
    """Return the bounds from one instant that was taken between sending and receipt."""
    return Bounds(date_s - received_at, date_s + RESOLUTION_S - sent_at)


def apart_s(one: Bounds, other: Bounds) -> float:
    """Return by how much two claims contradict each other, 0.0 if they do not."""
    return max(0.0, one.low_s - other.high_s, other.low_s - one.high_s)


def agreeing(newest_first: Iterable[ClockSample]) -> list[ClockSample]:
    """Return the newest samples up to the first that one of them contradicts by `SAME_ISSUER_S`."""
    found: list[ClockSample] = []
    low_s, high_s = ClockOffset(-math.inf), ClockOffset(math.inf)
    for sample in newest_first:
        bounds = sample.bounds_at(found[0].at if found else sample.at)
        low_s, high_s = max(low_s, bounds.low_s), min(high_s, bounds.high_s)
        if low_s - high_s > SAME_ISSUER_S:
            break
        found.append(sample)
    return found


def youngest(newest_first: list[ClockSample]) -> Bounds:
    """Intersect tokens that agree, without those that were not new when they came.

    They agree by `SAME_ISSUER_S` only, and none is of the future. The youngest of them decides, so
    that a cache which returns tokens of slightly different ages does not move the time back and
    forth. The youngest may have come with a slow response and wide bounds: the latest `PROOF`
    tokens limit how late the time can be, by as much as tokens that agree may differ.
    """
    known = [sample.bounds_at(newest_first[0].at) for sample in newest_first]
    low_s = max(bounds.low_s for bounds in known)
    latest_s = min(bounds.high_s for bounds in known[:PROOF]) + SAME_ISSUER_S
    high_s = min(bounds.high_s for bounds in known if bounds.high_s >= low_s)
    return Bounds(low_s, min(high_s, latest_s))


def _drifted(bounds: Bounds, since_s: float) -> Bounds:
    """Widen bounds by the drift of our clock in this time."""
    drift_s = DRIFT * max(0.0, since_s)
    return Bounds(bounds.low_s - drift_s, bounds.high_s + drift_s)


def intersect(newest_first: Iterable[Bounds]) -> Bounds:
    """Intersect observations from the newest back, up to the first contradiction.

    A contradiction means that the clock was stepped or slewed between the two, so that only later
    observations count.
    """
    remaining = iter(newest_first)
    low_s, high_s = next(remaining)
    for bounds in remaining:
        if bounds.low_s > high_s or bounds.high_s < low_s:
            break
        low_s, high_s = max(low_s, bounds.low_s), min(high_s, bounds.high_s)
    return Bounds(low_s, high_s)


def _support(claim: Bounds, known: Mapping[TimeSource, Bounds]) -> int:
    return sum(1 for other in known.values() if apart_s(claim, other) <= SAME_TIME_S)


def _has_expired(response: TokenTimes, bounds: Bounds) -> bool:
    """Return whether a token had expired when it arrived, so that the estimate is wrong."""
    if response.expires_s is None:
        return False
    return response.received_at + bounds.low_s >= response.expires_s
