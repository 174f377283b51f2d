"""The issuer's time from witnesses that may be wrong (pure).

The steps are those of docs/design/issuer-time.md. Instants of the issuer
are epoch seconds; every estimate is an offset: the issuer's time less our monotonic clock.
"""

import enum
import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

RESOLUTION_S = 1.0
"""`iat` and Date are cut to whole seconds: the instant lies up to one second after them."""

AGREE_S = 2.0
"""Claims of one issuer that are no further apart name the same time: nodes of an issuer that keep
their time, a rounded `iat`, a clock that is slewed."""

SAME_S = 5.0
"""Clocks of different machines that are no further apart agree."""

PROOF = 3
"""Tokens in a row that make a proof. Two that a cache hands out may agree by chance; one may come
from the one node of an issuer whose clock is wrong."""

MEMORY_S = 600.0
"""Older observations are dropped: crystals drift by up to 100 ppm, 0.06 s in ten minutes, and
would slowly turn narrow bounds into wrong ones."""

KEEP = 64
"""Observations kept at most; at one a second they would cover a minute, which is plenty."""


class Bounds(NamedTuple):
    """The issuer's time less our monotonic clock lies between these two, in seconds."""

    low_s: float
    high_s: float

    @property
    def middle_s(self) -> float:
        return (self.low_s + self.high_s) / 2


class Witness(enum.Enum):
    """What can speak of the issuer's time; the value is its name in logs and metrics."""

    TOKEN = "token"  # noqa: S105 - a witness's name
    EXPIRES_IN = "expires_in"
    ISSUER_DATE = "issuer_date"
    API_SERVER_DATE = "api_server_date"
    WALL_CLOCK = "wall_clock"
    MEMORY = "memory"


ORDER = (
    Witness.EXPIRES_IN,
    Witness.TOKEN,
    Witness.MEMORY,
    Witness.ISSUER_DATE,
    Witness.API_SERVER_DATE,
    Witness.WALL_CLOCK,
)
"""Who wins among claims with equally many supporters: the issuer's own word before any header, and
what was believed so far before a clock that says something else."""


@dataclass(frozen=True, slots=True)
class TokenTimes:
    """What one answer of the issuer says of time.

    Args:
        issued_s: The token's `iat`, or None.
        expires_s: The token's `exp`, or None.
        expires_in_s: The answer's `expires_in`, or None.
        sent_at: When the request started, monotonic.
        received_at: When the answer's headers were there, monotonic.
    """

    issued_s: float | None
    expires_s: float | None
    expires_in_s: float | None
    sent_at: float
    received_at: float


@dataclass(frozen=True, slots=True)
class ClockSample:
    """One token's claim, as it was first received.

    Args:
        issued_s: Its `iat`.
        floor_s: It was issued already: the offset is no less.
        ceiling_s: It has not expired yet: the offset is less; infinite for a token without `exp`.
        bounds: The offset, if it was issued for us or the answer says its age.
        at: When it was received, monotonic.
        is_refused: By what was believed it had expired as it came last.
    """

    issued_s: float
    floor_s: float
    ceiling_s: float
    bounds: Bounds
    at: float
    is_refused: bool = False


@dataclass(frozen=True, slots=True)
class ClockEstimate:
    """What is taken for the issuer's time; `proven` by `PROOF` tokens in a row, else voted `by`."""

    bounds: Bounds
    by: Witness
    proven: bool


class ServerClock:
    """Weighs the witnesses of each answer; holds no clock and asks nobody."""

    def __init__(self) -> None:
        self._run: deque[ClockSample] = deque(maxlen=KEEP)
        """Tokens of different seconds, the latest first, each as it was first received."""
        self._floor_s = -math.inf
        self._doubtful: ClockSample | None = None
        """The youngest of the tokens that contradict what earlier ones have proven."""
        self.belief: ClockEstimate | None = None
        """None until the first answer."""

    @property
    def wants_another(self) -> bool:
        """Whether the latest tokens contradict what earlier ones have proven.

        Another answer, a second later, tells a clock that was stepped (its token agrees with the
        latest one) from a cache (the same token) and from one wrong node of the issuer (its token
        agrees with what was proven).
        """
        return self._doubtful is not None

    def observe(self, answer: TokenTimes, others: Mapping[Witness, Bounds]) -> Bounds:
        """Take in one answer; return the issuer's time by which its token is to be judged.

        Args:
            others: What headers and clocks claim at this moment.
        """
        claims = claims_of(answer)
        sample = self.sample_of(answer, claims, others)
        is_repeated = sample is not None and self.is_repeated(sample)
        if sample is not None:
            self._remember(sample)
        self.belief, judged = self._judge(answer, claims, others, sample)
        self._note_refusal(answer, judged)
        if self.are_too_many_refused():
            self._floor_s = max(each.floor_s for each in self._latest())
            self.belief, self._doubtful = self._at_floor(), None
            judged = self.belief.bounds
            self._note_refusal(answer, judged)
        if is_repeated:
            self._doubtful = self._doubtful or sample
            return self.give_in(judged)
        self._doubtful = None if sample is None else self._doubt(sample)
        return judged

    def give_in(self, judged: Bounds) -> Bounds:
        """Move up to what the youngest token proves: asking again has brought nothing else.

        No token is issued in the future: if that one says so, what was proven is no longer true, or
        one node of the issuer is ahead; to be ahead with it costs writes, not tokens.

        Args:
            judged: What `hear` returned; it is returned again where that is not so.
        """
        youngest, self._doubtful = self._doubtful, None
        if self.belief is None or youngest is None:
            return judged
        if not self.is_below(self.belief.bounds, youngest):
            return judged
        self.belief = ClockEstimate(youngest.bounds, Witness.TOKEN, proven=False)
        return youngest.bounds

    def sample_of(
        self,
        answer: TokenTimes,
        claims: Mapping[Witness, Bounds],
        others: Mapping[Witness, Bounds],
    ) -> ClockSample | None:
        """Return what the token says of the issuer's time, None for one without `iat`.

        `expires_in` may say that it was not issued just now; whom of the two more others support is
        taken, `expires_in` if there is no difference: it makes the token older, not younger.
        """
        plain = claims.get(Witness.TOKEN)
        if plain is None or answer.issued_s is None:
            return None
        told = claims.get(Witness.EXPIRES_IN, plain)
        known = dict(others)
        if self.belief is not None:
            known[Witness.MEMORY] = self.belief.bounds
        bounds = plain if _support(plain, known) > _support(told, known) else told
        ceiling_s = math.inf if answer.expires_s is None else answer.expires_s - answer.received_at
        return ClockSample(answer.issued_s, plain.low_s, ceiling_s, bounds, answer.received_at)

    def is_repeated(self, sample: ClockSample) -> bool:
        """Tell whether this token was handed out before: there is a cache on the way."""
        return any(
            sample.issued_s == seen.issued_s and sample.bounds.high_s < seen.bounds.low_s
            for seen in self._run
        )

    def are_too_many_refused(self) -> bool:
        """Tell whether three different tokens in a row are refused, by whatever was believed.

        They have not all expired, so that the third is judged by what the youngest of them proves.
        """
        latest = self._latest()
        return len(latest) == PROOF and all(each.is_refused for each in latest)

    def is_below(self, bounds: Bounds, sample: ClockSample) -> bool:
        """Tell whether by this estimate a token would have been issued in the future."""
        return sample.floor_s - bounds.high_s > AGREE_S

    def is_proof(self, run: list[ClockSample]) -> bool:
        """Tell whether tokens that agree prove the time: enough of them, of different seconds."""
        return len({sample.issued_s for sample in run}) >= PROOF

    def vote(self, claims: Mapping[Witness, Bounds]) -> ClockEstimate:
        """Believe the claim that most others support; of equals the first in `ORDER`.

        `expires_in` and the token come in one answer: where they agree they are one witness.
        """
        one = dict(claims)
        if Witness.TOKEN in one and Witness.EXPIRES_IN in one:
            del one[Witness.TOKEN]
        ranked = [witness for witness in ORDER if witness in one]
        chosen = max(ranked, key=lambda witness: _support(one[witness], one))
        return ClockEstimate(one[chosen], chosen, proven=False)

    def _doubt(self, sample: ClockSample) -> ClockSample | None:
        """Return the token that is to be asked about again.

        A slow answer may agree with both sides and settles nothing; one that agrees with what was
        proven and not with the token before it settles that one node is wrong.
        """
        before = self._doubtful
        if before is not None and apart_s(before.bounds, sample.bounds) > AGREE_S:
            before = None
        if not self._contradicts(sample):
            return before if before is not None and self._contradicts(before) else None
        return sample if before is None else max(before, sample, key=lambda each: each.floor_s)

    def _contradicts(self, sample: ClockSample) -> bool:
        """Tell whether a token and what earlier ones have proven cannot both be true."""
        belief = self.belief
        if belief is not None and belief.proven:
            return apart_s(sample.bounds, belief.bounds) > AGREE_S
        return self._floor_s - sample.bounds.high_s > AGREE_S

    def _remember(self, sample: ClockSample) -> None:
        """Keep a token's claim; a token that comes again is no other token.

        Its first receipt proves the most: each later one finds it older. What earlier tokens prove
        is given up where by it the latest ones had all expired: the issuer was stepped back.
        """
        self._floor_s = max(self._floor_s, sample.floor_s)
        for index, seen in enumerate(self._run):
            if seen.issued_s == sample.issued_s:
                self._run[index] = replace(seen, bounds=intersect([seen.bounds, sample.bounds]))
                return
        while self._run and sample.at - self._run[-1].at > MEMORY_S and len(self._run) >= PROOF:
            self._run.pop()
        self._run.appendleft(sample)
        if self._floor_s >= self._ceiling_s():
            self._floor_s = max(each.floor_s for each in self._latest())

    def _note_refusal(self, answer: TokenTimes, judged: Bounds) -> None:
        """Keep whether a token has expired, as it came now."""
        for index, seen in enumerate(self._run):
            if seen.issued_s == answer.issued_s:
                self._run[index] = replace(seen, is_refused=_is_over(answer, judged))

    def _latest(self) -> list[ClockSample]:
        return list(self._run)[:PROOF]

    def _ceiling_s(self) -> float:
        """Return what the offset is less than: the latest tokens had not all expired on arrival."""
        latest = self._latest()
        return max(each.ceiling_s for each in latest) if len(latest) == PROOF else math.inf

    def _at_floor(self) -> ClockEstimate:
        """Return the earliest time by which no token is of the future."""
        bounds = Bounds(self._floor_s, self._floor_s + RESOLUTION_S)
        return ClockEstimate(bounds, Witness.TOKEN, proven=False)

    def is_possible(self, bounds: Bounds) -> bool:
        """Tell whether a claim has no token of the future, and not only expired ones."""
        return self._floor_s - bounds.high_s <= AGREE_S and bounds.low_s < self._ceiling_s()

    def _judge(
        self,
        answer: TokenTimes,
        claims: Mapping[Witness, Bounds],
        others: Mapping[Witness, Bounds],
        sample: ClockSample | None,
    ) -> tuple[ClockEstimate | None, Bounds]:
        run = agreeing(self._run)
        if sample is not None and self.is_proof(run):
            self._floor_s = min(self._floor_s, max(each.floor_s for each in run))
            proven = ClockEstimate(youngest(run), Witness.TOKEN, proven=True)
            return proven, proven.bounds
        if (
            self.belief is not None
            and self.belief.proven
            and self.belief.bounds.low_s < self._ceiling_s()
        ):
            return self.belief, self.belief.bounds
        known = dict(others) | dict(claims)
        if sample is not None:
            known[Witness.EXPIRES_IN] = sample.bounds
        if self.belief is not None:
            known[Witness.MEMORY] = self.belief.bounds
        possible = {
            witness: bounds for witness, bounds in known.items() if self.is_possible(bounds)
        }
        at_floor = self._at_floor()
        voted = self.vote(possible) if possible else at_floor
        if not _is_over(answer, voted.bounds):
            return voted, voted.bounds
        is_kept = self.belief is None or self.is_possible(self.belief.bounds)
        return (self.belief if is_kept else at_floor), voted.bounds


def claims_of(answer: TokenTimes) -> dict[Witness, Bounds]:
    """Return what an answer claims, witness by witness.

    The token claims to have been issued between sending and receipt; `expires_in` that so much of
    its life is left. An `expires_in` beyond the whole life says no more than the token.
    """
    claims = {}
    if answer.issued_s is not None:
        claims[Witness.TOKEN] = bounds_of(answer.issued_s, answer.sent_at, answer.received_at)
    if answer.expires_s is not None and answer.expires_in_s is not None:
        then_s = answer.expires_s - answer.expires_in_s
        if answer.issued_s is not None:
            then_s = max(then_s, answer.issued_s)
        claims[Witness.EXPIRES_IN] = bounds_of(then_s, answer.sent_at, answer.received_at)
    return claims


def bounds_of(date_s: float, sent_at: float, received_at: float) -> Bounds:
    """Return what one instant proves that was taken between sending and receipt."""
    return Bounds(date_s - received_at, date_s + RESOLUTION_S - sent_at)


def apart_s(one: Bounds, other: Bounds) -> float:
    """Return by how much two claims contradict each other, 0.0 where they do not."""
    return max(0.0, one.low_s - other.high_s, other.low_s - one.high_s)


def agreeing(newest_first: Iterable[ClockSample]) -> list[ClockSample]:
    """Return the newest samples up to the first that any of them contradicts by `AGREE_S`."""
    found: list[ClockSample] = []
    low_s, high_s = -math.inf, math.inf
    for sample in newest_first:
        low_s, high_s = max(low_s, sample.bounds.low_s), min(high_s, sample.bounds.high_s)
        if low_s - high_s > AGREE_S:
            break
        found.append(sample)
    return found


def youngest(newest_first: list[ClockSample]) -> Bounds:
    """Intersect tokens that agree, less those that were older than new when they came.

    They agree by `AGREE_S` only, and none is of the future: the youngest of them decides, so that a
    cache which gives tokens of slightly different ages does not move the time to and fro. The
    youngest may have come with a slow answer, whose bounds are wide: the latest `PROOF` tokens
    limit how late the time can be, by as much as tokens that agree may differ.
    """
    low_s = max(sample.bounds.low_s for sample in newest_first)
    latest_s = min(sample.bounds.high_s for sample in newest_first[:PROOF]) + AGREE_S
    high_s = min(s.bounds.high_s for s in newest_first if s.bounds.high_s >= low_s)
    return Bounds(low_s, min(high_s, latest_s))


def intersect(newest_first: Iterable[Bounds]) -> Bounds:
    """Intersect observations from the newest back, up to the first that contradicts.

    A contradiction means that the clock was stepped or slewed between the two, so that only what
    came after it counts.
    """
    remaining = iter(newest_first)
    low_s, high_s = next(remaining)
    for bounds in remaining:
        if bounds.low_s > high_s or bounds.high_s < low_s:
            break
        low_s, high_s = max(low_s, bounds.low_s), min(high_s, bounds.high_s)
    return Bounds(low_s, high_s)


def _support(claim: Bounds, known: Mapping[Witness, Bounds]) -> int:
    return sum(1 for other in known.values() if apart_s(claim, other) <= SAME_S)


def _is_over(answer: TokenTimes, bounds: Bounds) -> bool:
    """Tell whether a token had expired when it arrived: its answer is not the issuer's time."""
    if answer.expires_s is None:
        return False
    return bounds.low_s + answer.received_at >= answer.expires_s
