"""An issuer, a gateway, a cache and three clocks; every one of them may be wrong.

Real time moves only by `advance`; our monotonic clock shows it. The issuer's tokens follow the
issuer's clock, which may be stepped. A cache between us and the issuer holds one token for a time;
then our own request replaces it, or a request of others has done so. What is checked after each
mint are the claims of docs/design/issuer-time.md; the decisions are the product's own.
"""

import math
from dataclasses import dataclass, field

from reconciler.clock import NEVER, ClockOffset, EpochTime, Instant
from reconciler.tokens.server_clock import (
    PROOF,
    RESOLUTION_S,
    SAME_ISSUER_S,
    SAME_TIME_S,
    Bounds,
    ServerClock,
    TimeSource,
    TokenTimes,
    bounds_of,
)

TTL_S = 900.0
AGAIN_S = 1.1
ROUNDING_S = 1e-3


class WrongTime(AssertionError):
    """The estimate is not what the sources prove."""


@dataclass
class Request:
    """How one request goes: seconds there and back, and a step of the issuer's clock after it."""

    there_s: float = 0.0
    back_s: float = 0.0
    step_s: float = 0.0


@dataclass
class Cache:
    """Gives one token to all for a time.

    Args:
        keeps_s: For so long; infinite for one that only others fill.
        is_busy: Others ask as often, so that no token is issued for us.
        origin_s: How long the issuer takes to answer the cache.
        filled_at: When it got what it holds; at most once in `keeps_s`.
    """

    keeps_s: float
    is_busy: bool
    origin_s: float
    filled_at: Instant
    issued_s: EpochTime = EpochTime(0)


@dataclass
class World:
    """All of it. Offsets are a clock's reading less our monotonic clock, seconds.

    Args:
        date_s: Of the clocks that stamp Date headers, by gateway; empty for no such header.
        api_server_s: None while the API server was not heard.
        says_issued: Tokens have `iat`.
        says_left: Answers have `expires_in`.
        is_honest: A cache corrects `expires_in` by the token's age.
    """

    rules: ServerClock
    issuer_s: ClockOffset
    wall_s: ClockOffset
    date_s: list[ClockOffset]
    api_server_s: ClockOffset | None
    says_issued: bool = True
    says_left: bool = True
    is_honest: bool = False
    now_at: Instant = Instant(1000)
    cache: Cache | None = None
    fresh: set[EpochTime] = field(default_factory=set)
    """Seconds of the tokens, issued for us, that came in a row since the latest step."""
    is_stepped: bool = False
    """The issuer's clock was stepped, and `PROOF` fresh tokens have not come since."""
    ages_s: dict[EpochTime, float] = field(default_factory=dict)
    """Age at the first receipt of each token since the latest step, by its second, oldest first."""
    steps: int = 0
    """After a step back another token may be of the same second as an earlier one."""
    refused: set[EpochTime] = field(default_factory=set)
    """Seconds of the tokens that were refused in a row since then, though they had not expired."""
    is_stepped_back: bool = False
    """The clock was stepped back before this mint; what was believed before was right."""
    answers: int = 0
    gateway_s: ClockOffset | None = None
    """Of the gateway that passed the last answer on."""

    def issuer_now_s(self) -> EpochTime:
        return self.now_at + self.issuer_s

    @property
    def youngest_s(self) -> float:
        """Return the least age of the last three different tokens, infinite without any."""
        return min(list(self.ages_s.values())[-PROOF:], default=math.inf)

    def step(self, seconds: float) -> None:
        estimate = self.rules.estimate
        self.steps += 1
        self.is_stepped_back = (
            seconds < 0
            and not self.is_stepped
            and estimate is not None
            and self._is_near(estimate.bounds, SAME_TIME_S)
            and self.youngest_s < SAME_TIME_S
        )
        self.issuer_s += seconds
        self.fresh, self.ages_s, self.refused, self.is_stepped = set(), {}, set(), True
        if self.cache is not None:
            self._fill(self.cache, self.now_at)

    def put_cache(self, *, keeps_s: float, is_busy: bool, origin_s: float = 0.0) -> None:
        """Put a cache before the issuer; it asks at once."""
        self.cache = Cache(keeps_s, is_busy, origin_s, self.now_at)
        self._fill(self.cache, self.now_at)

    def _fill(self, cache: Cache, at: Instant) -> None:
        cache.filled_at = at
        cache.issued_s = self._issue_at(at - cache.origin_s)

    def _issue(self) -> tuple[EpochTime, bool]:
        """Return the `iat` of the token of this moment, and whether it was issued for us."""
        cache = self.cache
        if cache is not None and self.now_at - cache.filled_at >= cache.keeps_s:
            if not cache.is_busy:
                cache.filled_at = self.now_at
                cache.issued_s = self._issue_at(self.now_at)
                return cache.issued_s, True
            over_s = (self.now_at - cache.filled_at) % cache.keeps_s
            self._fill(cache, self.now_at - over_s)
        if cache is not None:
            return cache.issued_s, False
        return self._issue_at(self.now_at), True

    def _issue_at(self, at: Instant) -> EpochTime:
        return EpochTime(math.floor(at + self.issuer_s))

    def mint(self, requests: list[Request], gateway: int) -> None:
        """Ask as the token source does, then check what is believed."""
        was_stepped_back = self.is_stepped_back
        answer, judged = self._ask(requests[0], gateway)
        for number, request in enumerate(requests[1:PROOF]):
            if not self.rules.needs_another:
                break
            self.step_between(requests[number])
            self.now_at += AGAIN_S
            answer, judged = self._ask(request, gateway + number + 1)
        if self.rules.needs_another:
            judged = self.rules.settle(judged)
        self._check(answer, judged)
        if was_stepped_back and self.is_stepped_back and len(self.fresh) == len(self.ages_s):
            estimate = self.rules.estimate
            self._claim(
                estimate is not None and self._is_near(estimate.bounds, SAME_ISSUER_S),
                "a step back was not noticed with the first token",
            )
        self.is_stepped_back = False

    def step_between(self, request: Request) -> None:
        if request.step_s:
            self.step(request.step_s)

    def _ask(self, request: Request, gateway: int) -> tuple[TokenTimes, Bounds]:
        sent_at = self.now_at
        self.now_at += request.there_s
        issuing_s = self.issuer_now_s()
        issued_s, is_fresh = self._issue()
        left_s = TTL_S
        if self.is_honest:
            left_s -= EpochTime(math.floor(issuing_s)) - issued_s
        stamped = [self.now_at + ahead_s for ahead_s in self.date_s]
        self.now_at += request.back_s
        self.answers += 1
        self.gateway_s = self.date_s[gateway % len(self.date_s)] if self.date_s else None
        answer = TokenTimes(
            issued_s if self.says_issued else None,
            issued_s + TTL_S,
            left_s if self.says_left else None,
            sent_at,
            self.now_at,
            token_id=hash((self.steps, issued_s)),
        )
        others = {TimeSource.WALL_CLOCK: Bounds(self.wall_s, self.wall_s)}
        if self.api_server_s is not None:
            others[TimeSource.API_SERVER_DATE] = Bounds(self.api_server_s, self.api_server_s)
        if stamped:
            date_s = EpochTime(math.floor(stamped[gateway % len(stamped)]))
            others[TimeSource.ISSUER_DATE] = bounds_of(date_s, sent_at, self.now_at)
        if is_fresh and self.says_issued:
            self.fresh.add(issued_s)
        else:
            self.fresh = set()
        self.ages_s.setdefault(issued_s, self.issuer_now_s() - issued_s)
        return answer, self.rules.observe(answer, others)

    def _check(self, answer: TokenTimes, judged: Bounds) -> None:
        estimate = self.rules.estimate
        if estimate is None:
            return
        bounds = estimate.bounds
        if answer.issued_s is not None:
            now_s = answer.received_at + bounds.high_s
            self._claim(now_s >= answer.issued_s - SAME_ISSUER_S, "a token of the future was taken")
        if len(self.fresh) >= PROOF:
            self.is_stepped = False
            self._claim(self._is_near(bounds, SAME_ISSUER_S), "three fresh tokens prove the time")
            self._claim(
                answer.received_at + judged.low_s < (answer.issued_s or NEVER) + TTL_S,
                "a fresh token was refused",
            )
        if estimate.proven and not self.is_stepped:
            self._claim(bounds.low_s - self.issuer_s <= SAME_ISSUER_S, "proven and ahead")
        if self.says_issued:
            behind_s = self.issuer_s - bounds.high_s
            self._claim(
                behind_s <= self.youngest_s + SAME_ISSUER_S,
                "behind the youngest token that was seen",
            )
        self._check_refusal(answer, judged)
        if self.answers == 1 and self._wrong() <= 1 and self._shows_age() and not self._misled():
            self._claim(
                self._is_near(bounds, SAME_TIME_S), "one wrong clock moves the first estimate"
            )

    def _check_refusal(self, answer: TokenTimes, judged: Bounds) -> None:
        if not self.says_issued or answer.issued_s is None or answer.expires_s is None:
            return
        if answer.received_at + judged.low_s < answer.expires_s:
            self.refused = set()
        elif self.ages_s[answer.issued_s] < TTL_S:
            self.refused.add(answer.issued_s)
        self._claim(len(self.refused) < PROOF, "three tokens in a row were refused, none expired")

    def _wrong(self) -> int:
        """Return how many of the other clocks are off."""
        return sum(abs(each - self.issuer_s) > SAME_TIME_S / 2 for each in self._clocks())

    def _clocks(self) -> list[ClockOffset]:
        """Return the offsets of the other clocks that spoke with the last answer."""
        clocks = [self.wall_s, self.api_server_s, self.gateway_s]
        return [each for each in clocks if each is not None]

    def _shows_age(self) -> bool:
        """Tell whether the first answer says how old its token is."""
        return self.says_issued and (self.cache is None or (self.is_honest and self.says_left))

    def _misled(self) -> bool:
        """Tell whether a clock is behind by as much as a cached token is old.

        It then supports that the token is new, as a right clock would where `expires_in` is wrong.
        """
        as_if_new_s = self.issuer_s - self.youngest_s
        return self.youngest_s > SAME_TIME_S and any(
            abs(each - as_if_new_s) <= SAME_TIME_S + 2 * RESOLUTION_S for each in self._clocks()
        )

    def _is_near(self, bounds: Bounds, within_s: float) -> bool:
        within_s += ROUNDING_S
        return bounds.low_s - within_s <= self.issuer_s <= bounds.high_s + within_s

    def _claim(self, is_so: bool, what: str) -> None:
        if not is_so:
            raise WrongTime(
                f"{what}: {self.rules.estimate}, the issuer's offset is {self.issuer_s}"
            )
