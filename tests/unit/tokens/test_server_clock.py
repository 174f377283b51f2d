"""No drawn set of wrong clocks and caches fools the rules; and the model finds the wrong rules."""

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)
from msgspec.structs import replace

from reconciler.clock import ClockOffset, EpochTime, Instant
from reconciler.tokens.server_clock import (
    DRIFT,
    SAME_ISSUER_S,
    Bounds,
    ClockEstimate,
    ClockSample,
    ServerClock,
    TimeSource,
    TokenTimes,
)
from tests.interleavings import check_overrides, play, search
from tests.unit.tokens.clock_model import Request, World, WrongTime

pytestmark = pytest.mark.timeout(600)  # hundreds of interleavings, next to other tests

RIGHT = ClockOffset(1_767_225_600.25)
"""The issuer's time less our monotonic clock."""

OFF = st.one_of(st.just(0.0), st.sampled_from([-7200.0, -120.0, -40.0, 40.0, 300.0, 901.0]))
STEPS = st.sampled_from([-3600.0, -700.0, -20.0, 20.0, 700.0, 3600.0])
DURATIONS = st.one_of(st.just(0.0), st.floats(0.0, 2.5))
REQUESTS = st.builds(
    Request,
    DURATIONS,
    DURATIONS,
    st.one_of(st.just(0.0), st.just(0.0), st.just(0.0), STEPS),
)
CACHES: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    keeps_s=st.one_of(st.floats(5.0, 10.0), st.sampled_from([60.0, 300.0])),
    is_busy=st.booleans(),
    origin_s=DURATIONS,
)
MINTS = st.lists(REQUESTS, min_size=3, max_size=3)
PROMPT = [Request(), Request(), Request()]


class Interleaving(RuleBasedStateMachine):
    """One run: which clock is wrong, who caches, and when, is drawn."""

    rules_class: ClassVar[type[ServerClock]] = ServerClock

    @initialize(
        wall_s=OFF,
        dates=st.lists(OFF, max_size=2),
        api_server_s=st.one_of(st.none(), OFF),
        cache=st.one_of(st.none(), CACHES),
        says_issued=st.sampled_from([True, True, True, False]),
        says_left=st.booleans(),
        is_honest=st.booleans(),
        age_s=st.floats(0.0, 700.0),
    )
    def start(
        self,
        wall_s: float,
        dates: list[float],
        api_server_s: float | None,
        cache: dict[str, Any] | None,
        says_issued: bool,
        says_left: bool,
        is_honest: bool,
        age_s: float,
    ) -> None:
        self.world = World(
            self.rules_class(),
            issuer_s=RIGHT,
            wall_s=RIGHT + wall_s,
            date_s=[RIGHT + date_s for date_s in dates],
            api_server_s=None if api_server_s is None else RIGHT + api_server_s,
            says_issued=says_issued,
            says_left=says_left,
            is_honest=is_honest,
        )
        if cache is not None:
            self.world.put_cache(**cache)
            self.world.now_at += age_s

    @rule(requests=MINTS, gateway=st.integers(0, 1))
    def mint(self, requests: list[Request], gateway: int) -> None:
        self.world.mint(requests, gateway)

    @rule(requests=MINTS, wait_s=st.floats(2.0, 100.0), times=st.integers(2, 4))
    def mint_regularly(self, requests: list[Request], wait_s: float, times: int) -> None:
        for _ in range(times):
            self.world.now_at += wait_s
            self.world.mint(requests, 0)

    @rule(seconds=st.one_of(st.floats(0.0, 5.0), st.floats(0.0, 400.0)))
    def advance(self, seconds: float) -> None:
        self.world.now_at += seconds

    @rule(seconds=STEPS)
    def step_the_issuer(self, seconds: float) -> None:
        self.world.step(seconds)

    @precondition(lambda self: self.world.answers == 0)
    @rule(requests=MINTS, seconds=STEPS, wait_s=st.floats(0.0, 100.0))
    def step_the_issuer_after_its_first_token(
        self, requests: list[Request], seconds: float, wait_s: float
    ) -> None:
        self.world.mint(requests, 0)
        self.world.now_at += wait_s
        self.world.step(seconds)
        self.world.mint(requests, 0)

    @rule(seconds=STEPS)
    def step_our_wall(self, seconds: float) -> None:
        self.world.wall_s += seconds

    @rule(seconds=STEPS)
    def step_a_gateway(self, seconds: float) -> None:
        self.world.date_s[:1] = [each + seconds for each in self.world.date_s[:1]]

    @rule(age_s=st.floats(0.0, 400.0))
    def others_fill_the_cache(self, age_s: float) -> None:
        self.world.put_cache(keeps_s=math.inf, is_busy=True)
        self.world.now_at += age_s

    @rule(cache=CACHES)
    def put_a_cache_before_it(self, cache: dict[str, Any]) -> None:
        self.world.put_cache(**cache)

    @rule(
        requests=MINTS,
        age_s=st.one_of(st.floats(0.0, 12.0), st.floats(0.0, 300.0)),
        times=st.integers(1, 4),
    )
    def others_fill_the_cache_just_before_each_mint(
        self, requests: list[Request], age_s: float, times: int
    ) -> None:
        """Each token is another one, and as old as the last one was when we got it."""
        for _ in range(times):
            self.world.put_cache(keeps_s=math.inf, is_busy=True)
            self.world.now_at += age_s
            self.world.mint(requests, 0)

    @rule()
    def take_the_cache_off(self) -> None:
        self.world.cache = None


class DateIsTheTime(ServerClock):
    """What a header says is the issuer's time."""

    def observe(self, answer: TokenTimes, others: Mapping[TimeSource, Bounds]) -> Bounds:
        judged = super().observe(answer, others)
        date = others.get(TimeSource.ISSUER_DATE)
        if date is None:
            return judged
        self.estimate = ClockEstimate(date, TimeSource.ISSUER_DATE, proven=True)
        return date


class OneTokenProves(ServerClock):
    """Each token is taken for one that was issued just now."""

    def is_proof(self, run: list[ClockSample]) -> bool:
        return True


class RepetitionProves(ServerClock):
    """A token that comes three times counts as three."""

    def is_repeated(self, sample: ClockSample) -> bool:
        return False

    def _remember(self, sample: ClockSample) -> None:
        super()._remember(replace(sample, issued_s=sample.issued_s + float(sample.at) / 1e6))


class RepetitionsAreKept(ServerClock):
    """A token that comes again is one more of the tokens that agree."""

    def _remember(self, sample: ClockSample) -> None:
        super()._remember(sample)
        if self._samples[0].at != sample.at:
            self._samples.appendleft(sample)


class LatestReceiptCounts(ServerClock):
    """Of a token that comes again the latest receipt is kept."""

    def _remember(self, sample: ClockSample) -> None:
        super()._remember(sample)
        for index, seen in enumerate(self._samples):
            if seen.issued_s == sample.issued_s:
                self._samples[index] = sample


class SecondsNameTokens(ServerClock):
    """A token is the same by the second of its `iat`."""

    def observe(self, answer: TokenTimes, others: Mapping[TimeSource, Bounds]) -> Bounds:
        return super().observe(replace(answer, token_id=0), others)


class RepetitionsSettleNothing(ServerClock):
    """That a token comes again says nothing of whether it is right."""

    def is_repeated(self, sample: ClockSample) -> bool:
        return False


class AllMayHaveExpired(ServerClock):
    """Tokens may all have expired before they came, however many they are."""

    def _ceiling_s(self) -> ClockOffset:
        return ClockOffset(math.inf)

    def are_too_many_refused(self) -> bool:
        return False


class OnlyProofsAreContradicted(ServerClock):
    """What no three tokens have proven is not doubted for an older token."""

    def _contradicts(self, sample: ClockSample) -> bool:
        return self.estimate is not None and self.estimate.proven and super()._contradicts(sample)


class NothingRefutes(ServerClock):
    """What was proven once stays proven."""

    def observe(self, answer: TokenTimes, others: Mapping[TimeSource, Bounds]) -> Bounds:
        before = self.estimate
        judged = super().observe(answer, others)
        if before is not None and before.proven:
            self.estimate = before
            return before.bounds
        return judged

    def settle(self, judged: Bounds) -> Bounds:
        return judged


class TokensOfTheFuture(ServerClock):
    """A token that would have been issued later than now is no reason to doubt what wins."""

    def is_below(self, bounds: Bounds, sample: ClockSample) -> bool:
        return False


class NeverAsksAgain(ServerClock):
    """A contradiction waits for the next token that is due."""

    @property
    def needs_another(self) -> bool:
        return False


class WallFirst(ServerClock):
    """Of two sources that differ our own clock wins."""

    def vote(self, claims: Mapping[TimeSource, Bounds]) -> ClockEstimate:
        wall = claims.get(TimeSource.WALL_CLOCK)
        voted = super().vote(claims)
        if wall is None or len(claims) > 3:
            return voted
        return ClockEstimate(wall, TimeSource.WALL_CLOCK, proven=False)


class AnswersTakeNoTime(ServerClock):
    """The request's duration is forgotten."""

    def observe(self, answer: TokenTimes, others: Mapping[TimeSource, Bounds]) -> Bounds:
        return super().observe(replace(answer, sent_at=answer.received_at), others)


class ExpiresInIgnored(ServerClock):
    """A cache that says how old its token is is not listened to."""

    def observe(self, answer: TokenTimes, others: Mapping[TimeSource, Bounds]) -> Bounds:
        return super().observe(replace(answer, expires_in_s=None), others)


MUTANTS = [
    DateIsTheTime,
    OneTokenProves,
    RepetitionProves,
    RepetitionsAreKept,
    LatestReceiptCounts,
    SecondsNameTokens,
    RepetitionsSettleNothing,
    AllMayHaveExpired,
    OnlyProofsAreContradicted,
    NothingRefutes,
    TokensOfTheFuture,
    NeverAsksAgain,
    WallFirst,
    AnswersTakeNoTime,
    ExpiresInIgnored,
]


FOUND_BY = {
    RepetitionsAreKept: 1,
    SecondsNameTokens: 38,
    RepetitionsSettleNothing: 1,
    AnswersTakeNoTime: 3,
    ExpiresInIgnored: 4,
}
"""The seed that finds a mutant, where the first one does not."""


def played_by(rules_class: type[ServerClock]) -> type[Interleaving]:
    class Chosen(Interleaving):
        pass

    Chosen.rules_class = rules_class
    return Chosen


def test_no_interleaving_of_wrong_witnesses_gives_a_wrong_time() -> None:
    play(played_by(ServerClock), 800, steps=25)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_it_finds_the_wrong_time_of_wrong_rules(mutant: type[ServerClock]) -> None:
    check_overrides(mutant)
    with pytest.raises(WrongTime):
        search(played_by(mutant), 20_000, steps=25, first=FOUND_BY.get(mutant, 0))


def test_a_wall_clock_as_far_behind_as_a_cached_token_is_old_is_corrected_by_the_next_token() -> (
    None
):
    now_s = RIGHT
    world = World(
        ServerClock(),
        issuer_s=now_s,
        wall_s=now_s - 20.0,
        date_s=[],
        api_server_s=None,
        is_honest=True,
    )
    world.put_cache(keeps_s=60.0, is_busy=False)
    world.now_at += 15.0
    world.mint(PROMPT, 0)
    estimate = world.rules.estimate
    assert estimate is not None
    assert now_s - 16.0 <= estimate.bounds.middle_s <= now_s - 14.0
    world.now_at += 60.0
    world.mint(PROMPT, 0)
    estimate = world.rules.estimate
    assert estimate is not None
    assert abs(estimate.bounds.middle_s - now_s) <= 1.0


class SlowAnswersSettle(ServerClock):
    """An answer that contradicts nothing agrees with what was proven."""

    def _find_contradiction(self, sample: ClockSample) -> ClockSample | None:
        return sample if self._contradicts(sample) else None


def _slow_after_a_cache(rules: ServerClock) -> None:
    now_s = RIGHT
    world = World(rules, issuer_s=now_s, wall_s=now_s, date_s=[], api_server_s=None)
    prompt, slow = Request(), Request(back_s=1.0)
    for _ in range(3):
        world.put_cache(keeps_s=math.inf, is_busy=True)
        world.now_at += 4.0
        world.mint([prompt, prompt, prompt], 0)
    world.cache = None
    world.now_at += 2.0
    world.mint([prompt, slow, prompt], 0)


def test_a_slow_answer_does_not_settle_which_of_two_times_is_right() -> None:
    _slow_after_a_cache(ServerClock())
    with pytest.raises(WrongTime, match="behind the youngest"):
        _slow_after_a_cache(SlowAnswersSettle())


def test_of_tokens_that_agree_the_youngest_decides() -> None:
    now_s = RIGHT
    world = World(
        ServerClock(),
        issuer_s=now_s,
        wall_s=now_s,
        date_s=[],
        api_server_s=None,
    )
    for age_s in (2.0, 3.0, 4.0):
        world.put_cache(keeps_s=math.inf, is_busy=True)
        world.now_at += age_s
        world.mint([Request(), Request(), Request()], 0)
    estimate = world.rules.estimate
    assert estimate is not None
    assert estimate.proven
    assert estimate.bounds.high_s >= now_s - 2.25


def test_a_slow_answer_of_the_youngest_token_widens_nothing_that_is_proven() -> None:
    now_s = 1_767_225_600.0
    rules = ServerClock()
    for at in (10.0, 20.0, 30.0):
        rules.observe(
            TokenTimes(EpochTime(now_s + at), None, None, Instant(at), Instant(at), int(at)),
            {},
        )
    # From a node of the issuer that is 2 s ahead, 4 s after the request.
    rules.observe(
        TokenTimes(EpochTime(now_s + 42.0), None, None, Instant(36), Instant(40), 42),
        {},
    )
    high_s = now_s + 3.0 + DRIFT * 10.0  # the token of 30 has an age of 10 s
    assert rules.estimate == ClockEstimate(
        Bounds(ClockOffset(now_s + 2.0), ClockOffset(high_s)), TimeSource.TOKEN, proven=True
    )
    for at in (50.0, 60.0, 70.0):
        rules.observe(
            TokenTimes(EpochTime(now_s + at), None, None, Instant(at), Instant(at), int(at)),
            {},
        )
    low_s = now_s + 2.0 - DRIFT * 30.0  # the token of 40 has an age of 30 s
    assert rules.estimate == ClockEstimate(
        Bounds(ClockOffset(low_s), ClockOffset(now_s + 3.0)), TimeSource.TOKEN, proven=True
    )


@pytest.mark.parametrize("is_repeated", [False, True])
def test_another_token_of_a_known_second_shows_a_step_back(is_repeated: bool) -> None:
    now_s, rules = 1_767_225_600.0, ServerClock()

    def observe(at: float, token_s: float, token_id: int) -> None:
        issued_s, instant = EpochTime(now_s + token_s), Instant(at)
        rules.observe(
            TokenTimes(issued_s, issued_s + 900.0, None, instant, instant, token_id=token_id), {}
        )

    for number, at in enumerate((10.0, 100.0, 190.0)):
        observe(at, at, number)
    observe(280.0, 100.0, 1 if is_repeated else 3)
    assert rules.needs_another != is_repeated
    for number in (4, 5):
        observe(280.0 + number, 100.0 + number, number)
    assert rules.estimate is not None
    assert rules.estimate.proven
    offset_s = now_s if is_repeated else now_s - 180.0
    assert float(rules.estimate.bounds.low_s) == pytest.approx(offset_s, abs=1.0)


def test_a_token_that_is_refused_still_shows_that_the_time_is_later() -> None:
    now_s, ahead_s = RIGHT, 901.0
    world = World(
        ServerClock(),
        issuer_s=now_s,
        wall_s=now_s - 7200.0,
        date_s=[now_s, now_s + ahead_s],
        api_server_s=now_s + ahead_s,
        says_left=False,
    )
    world.put_cache(keeps_s=math.inf, is_busy=True)
    world.now_at += 4.0
    world.mint([Request(), Request(), Request()], 0)
    world.cache = None
    world.mint([Request(), Request(), Request()], 1)
    estimate = world.rules.estimate
    assert estimate is not None
    assert estimate.bounds.high_s >= now_s - 2.0


def test_two_gateways_whose_dates_differ_do_not_move_the_time_of_opaque_tokens() -> None:
    rules = ServerClock()
    opaque = TokenTimes(None, None, 900.0, Instant(10), Instant(10), token_id=1)
    wall = Bounds(ClockOffset(950), ClockOffset(950))
    for date_s in (1000.0, 1300.0, 1000.0, 1300.0):
        rules.observe(
            opaque,
            {
                TimeSource.WALL_CLOCK: wall,
                TimeSource.ISSUER_DATE: Bounds(ClockOffset(date_s), ClockOffset(date_s + 1)),
            },
        )
        assert rules.estimate is not None
        assert rules.estimate.bounds.low_s == ClockOffset(1000)


class RefusesWithoutEnd(ServerClock):
    """Only a time by which three tokens had expired as they first came is given up."""

    def are_too_many_refused(self) -> bool:
        return False


def _mint_from_a_cache(world: World, *, age_s: float) -> None:
    """Have others fill a cache so long before our request."""
    world.put_cache(keeps_s=math.inf, is_busy=True)
    world.now_at += age_s
    world.mint(PROMPT, 0)


def _right_wall(rules: ServerClock) -> World:
    """Return a world with our wall clock, right at first, as the only other source."""
    now_s = RIGHT
    return World(
        rules,
        issuer_s=now_s,
        wall_s=now_s,
        date_s=[],
        api_server_s=None,
        says_left=False,
    )


def _stepped_back_behind_a_cache(rules: ServerClock) -> None:
    """The token that a cache got as it came is given, and comes again as one that has expired."""
    world = _right_wall(rules)
    for age_s in (3.0, 4.0, 4.0):
        _mint_from_a_cache(world, age_s=age_s)
    world.cache = None
    world.mint([Request(), Request(step_s=-700.0), Request()], 0)
    # Of an age that with the step is a life.
    for _ in range(3):
        _mint_from_a_cache(world, age_s=203.0)


def _stepped_thrice_behind_a_cache(rules: ServerClock) -> None:
    """Two tokens are refused by a time that was stepped, the third by our wall clock."""
    world = _right_wall(rules)
    world.mint(PROMPT, 0)
    world.step(3600.0)
    world.mint(PROMPT, 0)
    world.step(-700.0)
    world.put_cache(keeps_s=math.inf, is_busy=True)
    world.mint([Request(step_s=-3600.0), Request(), Request()], 0)
    for _ in range(2):
        _mint_from_a_cache(world, age_s=199.0)


@pytest.mark.parametrize("play", [_stepped_back_behind_a_cache, _stepped_thrice_behind_a_cache])
def test_of_three_tokens_in_a_row_the_third_is_not_refused(
    play: Callable[[ServerClock], None],
) -> None:
    play(ServerClock())
    with pytest.raises(WrongTime, match="three tokens in a row were refused"):
        play(RefusesWithoutEnd())


@pytest.mark.parametrize("ages_s", [(0.0, 0.0, 0.0), (1.0, 950.0, 950.0), (950.0, 1.0, 950.0)])
def test_a_cache_that_keeps_tokens_for_longer_than_they_live_moves_no_time(
    ages_s: tuple[float, ...],
) -> None:
    """The time is right, and each token is refused as it expires; the youngest holds the time."""
    world = _right_wall(ServerClock())
    for _ in range(3):
        world.now_at += 90.0
        world.mint(PROMPT, 0)
    for age_s in ages_s:
        _mint_from_a_cache(world, age_s=age_s)
        world.now_at += 950.0
        world.mint(PROMPT, 0)
        estimate = world.rules.estimate
        assert estimate is not None
        assert abs(estimate.bounds.middle_s - world.issuer_s) <= 2.0


@pytest.mark.parametrize("drift", [-0.0005, 0.0005])
def test_a_clock_that_drifts_is_followed_behind_a_cache_of_hours(drift: float) -> None:
    rules, every_s = ServerClock(), 8 * 3600.0
    for number in range(1, 8):
        issued_s = EpochTime(math.floor(RIGHT + number * every_s * (1 + drift)))
        for retry_s in (0.0, 2.2):
            sent_at = Instant(number * every_s + retry_s)
            ends_s = issued_s + 86_400.0
            response = TokenTimes(issued_s, ends_s, None, sent_at, sent_at + 0.1, number)
            judged = rules.observe(response, {})
            if retry_s and rules.needs_another:
                rules.settle(judged)
    assert rules.estimate is not None
    off_s = rules.estimate.bounds.middle_s - (RIGHT + number * every_s * drift)
    assert abs(off_s) <= SAME_ISSUER_S
