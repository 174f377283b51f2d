"""No write without evidence, in any interleaving that is found; and what else would be found."""

from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
)
from msgspec.structs import replace

from reconciler.clock import parse_utc
from reconciler.controller.decide.evidence import (
    Evidence,
    Owner,
    TokenLife,
    WriteRecord,
    WriteResponse,
)
from reconciler.kube.api import ObjectMeta
from tests.interleavings import check_overrides, play, search
from tests.unit.controller.write_model import US, Agent, Broken, Server, Token

pytestmark = pytest.mark.timeout(600)  # hundreds of interleavings, beside other tests

SKEWS_S = st.sampled_from([(0.0, 0.0), (0.0, 0.9), (0.9, 0.0), (0.3, 0.0)])
ISSUERS = st.sampled_from(["static", "fresh", "cached", "ahead"])
AT_SERVER = st.integers(0, 1)
MANAGERS = st.sampled_from(["platform", "kubectl"])
SECONDS = st.one_of(
    st.sampled_from([0.1, 0.5, 1.0, 2.0, 30.0, 73.0, 400.0]), st.floats(0.0, 5.0, width=32)
)
ERRORS_S = st.sampled_from([0.0, -62.0, -3600.0, 61.0, 1000.0])


class Interleaving(RuleBasedStateMachine):
    """One run: who does what next is drawn, and so is what the network does with it."""

    agent_class: ClassVar[type[Agent]] = Agent

    @initialize(skews_s=SKEWS_S, issuer=ISSUERS, equal=st.booleans(), error_s=ERRORS_S)
    def begin(self, skews_s: tuple[float, ...], issuer: str, equal: bool, error_s: float) -> None:
        self.server = Server(skews_s)
        self.agent = self.agent_class(self.server, issuer)
        self.agent.clock_error_s = error_s
        if equal:
            self.write_what_we_have(0, "platform")
            self.agent.see(self.server.current)

    # We

    @rule()
    def act(self) -> None:
        self.agent.act()

    @rule()
    def act_at_once(self) -> None:
        self.agent.act_at_once()

    @rule(choice=st.integers(0, 5))
    def arrive(self, choice: int) -> None:
        """Any write that was ever sent may arrive now, whether its sender still waits or lives."""
        sent = [write for write in self.agent.writes if write.state == "sent"]
        if sent:
            self.agent.arrive(sent[choice % len(sent)])

    @rule()
    def answer(self) -> None:
        if self.agent.waiting is not None:
            self.agent.answer(self.agent.waiting)

    @rule()
    def arrive_and_lose(self) -> None:
        """The server applies a write, and its answer is lost."""
        if self.agent.waiting is not None:
            self.agent.arrive(self.agent.waiting)
            self.agent.lose()

    @rule()
    def give_up(self) -> None:
        self.agent.lose()

    @rule(count=st.integers(1, 3))
    def hear(self, count: int) -> None:
        """Some of the events that are due come, the last of them or an old one once more."""
        history = self.server.history
        index = history.index(self.agent.seen)
        for state in history[index : index + 1 + count]:
            self.agent.see(state)

    @rule()
    def come_to_rest(self) -> None:
        self.agent.come_to_rest()

    @rule()
    def restart(self) -> None:
        self.agent.restart()

    @rule(
        times=st.integers(2, 6),
        pause_s=st.sampled_from([0.1, 1.0, 20.0]),
        edited=st.booleans(),
        is_lost=st.booleans(),
        hears=st.booleans(),
    )
    def insist(self, times: int, pause_s: float, edited: bool, is_lost: bool, hears: bool) -> None:
        """Run again and again, as events ask for it; nothing that concerns us happens."""
        for _ in range(times):
            if is_lost:
                self.act()
                self.arrive_and_lose()
            else:
                self.agent.act_at_once()
            if edited:
                self.edit("argocd", 0)
            if hears:
                self.agent.see(self.server.current)
            self.server.now_s += pause_s

    # Others

    @rule(manager=MANAGERS, at=AT_SERVER, value=st.sampled_from("xy"))
    def overwrite(self, manager: str, at: int, value: str) -> None:
        self.server.overwrite(manager, at, value, self.agent.in_flight)

    @rule(at=AT_SERVER, manager=MANAGERS)
    def write_what_we_have(self, at: int, manager: str) -> None:
        """Another writes the token that we would write: a shared cache, or a static token."""
        self.server.overwrite(manager, at, self.agent.token().value, self.agent.in_flight)

    @rule(manager=st.sampled_from(["platform", "kubectl", "argocd"]), at=AT_SERVER)
    def edit(self, manager: str, at: int) -> None:
        self.server.edit(manager, at, self.agent.in_flight)

    @rule(at=AT_SERVER)
    def strip(self, at: int) -> None:
        self.server.strip(at, self.agent.in_flight)

    @rule(stripping=st.booleans())
    def admission(self, stripping: bool) -> None:
        self.agent.stripping = stripping

    @rule()
    def forget_managers(self) -> None:
        if self.server.current.tracked:
            self.server.forget_managers()
            self.server.news(self.agent.in_flight)

    @rule(value=st.sampled_from(["", "1", "2", "3"]))
    def ask(self, value: str) -> None:
        self.agent.ask(value)

    @rule()
    def replace_static(self) -> None:
        self.agent.replace_static()

    # Time

    @rule(seconds=SECONDS)
    def advance(self, seconds: float) -> None:
        self.server.now_s += seconds

    @rule(error_s=ERRORS_S)
    def step_clock(self, error_s: float) -> None:
        self.agent.clock_error_s = error_s


class NameAlone(Agent):
    """Whoever is named as the owner wrote the token."""

    def owner(self, meta: ObjectMeta, answer: WriteResponse | None) -> Owner:
        if US in meta.field_managers:
            return Owner.OURS
        return Owner.FOREIGN if meta.field_managers else Owner.UNOWNED


class TimesAlone(Agent):
    """What was answered to our own write counts for nothing."""

    def owner(self, meta: ObjectMeta, answer: WriteResponse | None) -> Owner:
        return super().owner(meta, None)


class TiesAreOurs(Agent):
    """Who wrote in the same second as we did, wrote before us."""

    def owner(self, meta: ObjectMeta, answer: WriteResponse | None) -> Owner:
        found = super().owner(meta, answer)
        return Owner.OURS if found is Owner.UNCLEAR else found


class IssuersTime(Agent):
    """The time of the other's write is compared with `token-refreshed-at`."""

    def owner(self, meta: ObjectMeta, answer: WriteResponse | None) -> Owner:
        written_s = parse_utc(meta.annotations.refreshed_at or "")
        fields = {name: getattr(meta, name) for name in meta.__struct_fields__}
        return super().owner(ObjectMeta(**(fields | {"own_s": written_s})), None)


class SettledAtOnce(Agent):
    """An owner that stands as it stood in our answer has not written since, whatever the second."""

    def owner(self, meta: ObjectMeta, answer: WriteResponse | None) -> Owner:
        if answer is not None and answer.shows_owners_of(meta) and meta.field_managers:
            return Owner.OURS
        return super().owner(meta, answer)


class VersionsAreEvidence(Agent):
    """Whatever changes the Secret is a reason to write again what the plan asks for."""

    def wait(
        self,
        record: WriteRecord | None,
        meta: ObjectMeta,
        owner: Owner,
        evidence: Evidence,
        life: TokenLife,
    ) -> float:
        answer = record.response if record is not None else None
        if answer is not None and answer.version != meta.version:
            return 0.0
        return super().wait(record, meta, owner, evidence, life)


class AnyLaterEnd(Agent):
    """A token that ends later at all is worth a write."""

    def wait(
        self,
        record: WriteRecord | None,
        meta: ObjectMeta,
        owner: Owner,
        evidence: Evidence,
        life: TokenLife,
    ) -> float:
        if record is not None and life.expires_s > record.expires_s:
            return 0.0
        return super().wait(record, meta, owner, evidence, life)


class OwnersDoNotMatter(Agent):
    """What our annotations say is what the Secret holds."""

    def wait(
        self,
        record: WriteRecord | None,
        meta: ObjectMeta,
        owner: Owner,
        evidence: Evidence,
        life: TokenLife,
    ) -> float:
        return super().wait(record, meta, Owner.OURS, evidence, life)


class ForgetsTheLost(Agent):
    """A write whose answer is lost was none."""

    def lose(self) -> None:
        if self.waiting is not None:
            self.record = self.waiting.before
        super().lose()


class RequestsForEver(Agent):
    """A request is a reason to write for as long as it stands."""

    def wait(
        self,
        record: WriteRecord | None,
        meta: ObjectMeta,
        owner: Owner,
        evidence: Evidence,
        life: TokenLife,
    ) -> float:
        if evidence.requests and record is not None:
            record = replace(record, evidence=replace(record.evidence, requests=frozenset()))
        return super().wait(record, meta, owner, evidence, life)


class MintsForEachWrite(Agent):
    """A write is made again with another token than the one whose answer was lost."""

    def is_at_hand(self, token: Token) -> bool:
        return False


MUTANTS = [
    NameAlone,
    TimesAlone,
    TiesAreOurs,
    IssuersTime,
    SettledAtOnce,
    VersionsAreEvidence,
    AnyLaterEnd,
    OwnersDoNotMatter,
    ForgetsTheLost,
    RequestsForEver,
    MintsForEachWrite,
]


FOUND_BY = {
    TiesAreOurs: 10,
    SettledAtOnce: 10,
    TimesAlone: 4,
    RequestsForEver: 3,
    MintsForEachWrite: 1,
}
"""The seed that finds a mutant, where the first one does not."""


def played_by(agent_class: type[Agent]) -> type[Interleaving]:
    class Chosen(Interleaving):
        pass

    Chosen.agent_class = agent_class
    return Chosen


def test_no_interleaving_repeats_a_write_leaves_a_foreign_token_or_accuses_wrongly() -> None:
    play(played_by(Agent), 400)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_it_finds_what_is_wrong_with_other_rules(mutant: type[Agent]) -> None:
    check_overrides(mutant)
    with pytest.raises(Broken):
        search(played_by(mutant), 2_000, first=FOUND_BY.get(mutant, 0))


def _strip_all_and_lose_all_answers(agent_class: type[Agent], *, times: int) -> Server:
    class Chosen(Interleaving):
        pass

    Chosen.agent_class = agent_class
    run = Chosen()
    run.begin(skews_s=(0.0, 0.0), issuer="fresh", equal=False, error_s=0.0)
    run.admission(stripping=True)
    run.insist(edited=False, hears=True, is_lost=True, pause_s=0.1, times=times)
    return run.server


def test_where_nothing_shows_that_a_write_was_applied_the_next_one_changes_nothing() -> None:
    server = _strip_all_and_lose_all_answers(Agent, times=40)
    assert len(server.ours) == 1
    with pytest.raises(Broken, match="another token so soon"):
        _strip_all_and_lose_all_answers(MintsForEachWrite, times=2)


def test_a_clock_that_is_set_forward_after_a_write_is_no_other_static_token() -> None:
    run = Interleaving()
    run.begin(skews_s=(0.0, 0.0), issuer="static", equal=False, error_s=0.0)
    run.replace_static()
    run.step_clock(error_s=-62.0)
    run.act_at_once()
    run.step_clock(error_s=0.0)
    run.act_at_once()
    assert len(run.server.ours) == 1


def test_a_clock_that_is_set_back_hides_no_static_token_that_came_during_a_write() -> None:
    run = Interleaving()
    run.begin(skews_s=(0.0, 0.0), issuer="static", equal=False, error_s=0.0)
    run.replace_static()
    run.act()
    run.replace_static()
    run.step_clock(error_s=-62.0)
    run.come_to_rest()
    assert run.server.current.value == "static-2"
