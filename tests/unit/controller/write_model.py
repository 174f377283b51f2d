"""One Secret, its API servers, other writers and ours: every step is somebody's choice.

API servers write whole seconds of clocks that differ by less than one. A write of ours may reach
the server at any later time, or never, and so may its answer; events come late. What is decided is
decided by the product's own functions; only carrying it out is modelled.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

from msgspec import structs

from reconciler.clock import LONG_AGO, NEVER, EpochTime, Instant, format_utc, format_utc_millis
from reconciler.controller.decide.evidence import (
    CLOCK_TOLERANCE_S,
    Evidence,
    Owner,
    TokenLife,
    WriteRecord,
    WriteResponse,
    last_applied,
    life_of,
    owner_of,
    undone,
    wait_s,
)
from reconciler.controller.decide.refresh_plan import (
    Action,
    Confirmation,
    DecisionContext,
    Plan,
    SessionState,
    plan,
)
from reconciler.kube.api import ObjectMeta
from reconciler.tokens.source import FRESH_FRACTION
from tests.unit.controller.build import KEY, NAMES, NOW_S, pod, secret

US = NAMES.field_manager
LIFE_S = 900.0
WINDOW = 0.2
"""The part of a life in which a session is written so often at most."""

BUDGET = 3

FRESH_S = FRESH_FRACTION * LIFE_S
"""The source gives another token no sooner than so long after the last one."""


class Broken(AssertionError):
    """A promise was broken."""


@dataclass(frozen=True)
class Token:
    """A value, and its times in the issuer's time; `born_s` is when it was made by real time."""

    value: str
    issued_s: EpochTime
    expires_s: EpochTime
    born_s: EpochTime


@dataclass(frozen=True)
class State:
    """What the server holds: `entries` are managers' times, `owner` who owns the token's key."""

    version: int
    value: str
    annotations: dict[str, str]
    entries: dict[str, int]
    owner: str
    tracked: bool

    def meta(self) -> ObjectMeta:
        writers = (self.owner,) if self.tracked and self.owner else ()
        foreign = bool(writers) and self.owner != US
        return secret(
            age_s=None,
            annotations=self.annotations,
            writers=writers,
            version=str(self.version),
            foreign_s=float(self.entries[self.owner]) if foreign else None,
            own_s=float(self.entries[US]) if foreign and US in self.entries else None,
        )


@dataclass
class Write:
    """A write of ours under way, or done."""

    version: int
    token: Token
    annotations: dict[str, str | None]
    record: WriteRecord
    before: WriteRecord | None
    term: str
    at_server: int
    state: str = "sent"
    applied: State | None = None
    applied_s: EpochTime = NEVER
    stripped: bool = False
    heard: bool = False

    @property
    def is_blind(self) -> bool:
        """Whether nothing shows that it was applied: neither the Secret says it, nor an answer."""
        return self.stripped and not self.heard


@dataclass
class Server:
    """The Secret, and the account of who changed it when."""

    skews_s: tuple[float, ...]
    now_s: EpochTime = NOW_S
    history: list[State] = field(default_factory=list)
    ours: list[Write] = field(default_factory=list)
    """What we wrote since the last news."""
    in_flight: int = 0
    """Writes that were under way when the last news came."""
    noise: bool = False
    foreign_version: int = 0

    def __post_init__(self) -> None:
        entries = {"platform": self.second(0)}
        self.history = [State(1, "old", {}, entries, "platform", tracked=True)]

    @property
    def current(self) -> State:
        return self.history[-1]

    def second(self, at_server: int) -> int:
        return math.floor(self.now_s + self.skews_s[at_server % len(self.skews_s)])

    def change(
        self,
        manager: str,
        at_server: int,
        *,
        value: str | None = None,
        annotations: dict[str, str | None] | None = None,
        labels: bool = False,
    ) -> State | None:
        """Apply a change; None if it changes nothing."""
        old = self.current
        after: dict[str, str] = dict(old.annotations)
        added = False
        for name, text in (annotations or {}).items():
            if text is None:
                after.pop(name, None)
            else:
                added = added or after.get(name) != text
                after[name] = text
        is_new = value is not None and value != old.value
        if not is_new and after == old.annotations and not labels:
            return None
        entries = dict(old.entries)
        if old.tracked and (is_new or added or labels):
            entries[manager] = self.second(at_server)
        new = State(
            old.version + 1,
            value if is_new and value is not None else old.value,
            after,
            entries,
            manager if is_new else old.owner,
            old.tracked,
        )
        self.history.append(new)
        return new

    def news(self, in_flight: int) -> None:
        """Note what gives us a reason to write."""
        self.ours.clear()
        self.in_flight, self.noise = in_flight, False

    def overwrite(self, manager: str, at_server: int, value: str, in_flight: int) -> None:
        if self.change(manager, at_server, value=value) is not None:
            self.news(in_flight)
            self.foreign_version = self.current.version

    def edit(self, manager: str, at_server: int, in_flight: int) -> None:
        """Change what is no business of ours."""
        self.change(manager, at_server, labels=True)
        if manager == self.current.owner:
            self.news(in_flight)
            self.foreign_version = self.current.version
        elif (
            self.current.owner != US
            and self.ours
            and self.now_s - self.ours[0].applied_s < CLOCK_TOLERANCE_S
        ):
            self.news(in_flight)  # whose an equal token is is not known yet
        else:
            self.noise = True

    def strip(self, at_server: int, in_flight: int) -> None:
        if self.change("kubectl", at_server, annotations=dict.fromkeys(NAMES.annotations())):
            self.news(in_flight)
            self.foreign_version = self.current.version

    def forget_managers(self) -> None:
        old = self.current
        self.history.append(replace(old, version=old.version + 1, entries={}, tracked=False))


class Agent:
    """The thinnest worker that the steps allow: no back-off, no pauses, no queue.

    Args:
        issuer: `fresh` mints a token for each write, `cached` gives one until its end is near,
            `ahead` mints with an issue time two minutes ahead, `static` has one without an end.
            Only after a write whose answer is lost is the last token given again, for as long as
            the product's source would: this is what the argument rests on there.
    """

    def __init__(self, server: Server, issuer: str) -> None:
        self.server = server
        self.issuer = issuer
        self.minted: list[Token] = []
        self.replaced: tuple[EpochTime, EpochTime] = (LONG_AGO, server.now_s)
        self.clock_error_s = 0.0
        self.request = ""
        self.stripping = False
        self.terms = 0
        self.writes: list[Write] = []
        self.start()

    def start(self) -> None:
        """Be a new process that has just listed the Secret."""
        self.terms += 1
        self.term = f"replica-0/{self.terms}"
        self.record: WriteRecord | None = None
        self.waiting: Write | None = None
        self.seen = self.server.current

    # What the steps are made of; wrong variants change these.

    def owner(self, meta: ObjectMeta, answer: WriteResponse | None) -> Owner:
        return owner_of(meta, US, answer)

    def wait(
        self,
        record: WriteRecord | None,
        meta: ObjectMeta,
        owner: Owner,
        evidence: Evidence,
        life: TokenLife,
    ) -> float:
        return wait_s(record, meta, owner, evidence, life=life)

    def is_at_hand(self, token: Token) -> bool:
        """Tell whether the source gives the newest token again."""
        age_s = self.server.now_s - token.born_s
        if self.issuer == "cached":
            return age_s < 0.95 * LIFE_S
        is_lost = self.record is not None and self.record.response is None
        return is_lost and age_s <= FRESH_S

    # What carries them out.

    @property
    def now_s(self) -> EpochTime:
        """What we take for the issuer's time."""
        return self.server.now_s + self.clock_error_s

    def token(self) -> Token:
        now_s = self.server.now_s
        last = self.minted[-1] if self.minted else None
        if self.issuer == "static":
            if last is None:
                last = Token("static-0", now_s, NEVER, now_s)
                self.minted.append(last)
            return last
        if last is not None and self.is_at_hand(last):
            return last
        ahead_s = 120.0 if self.issuer == "ahead" else 0.0
        issued_s = EpochTime(math.floor(now_s + ahead_s))
        made = Token(f"minted-{len(self.minted)}", issued_s, issued_s + LIFE_S, now_s)
        self.minted.append(made)
        return made

    def replace_static(self) -> None:
        if self.issuer == "static":
            self.token()
            value = f"static-{len(self.minted)}"
            self.server.now_s += 2.0
            self.minted.append(Token(value, self.now_s, NEVER, self.server.now_s))
            self.replaced = (self.now_s, self.server.now_s)
            self.server.now_s += 2.0
            self.server.news(self.in_flight)

    @property
    def replaced_s(self) -> EpochTime:
        """When the static token took another's place; as `StaticSource` has it."""
        at_s, real_s = self.replaced
        return min(at_s, self.now_s - (self.server.now_s - real_s))

    @property
    def generation(self) -> int:
        """The last static token's place in their row; others are never replaced."""
        return max(0, len(self.minted) - 1) if self.issuer == "static" else 0

    @property
    def in_flight(self) -> int:
        return sum(write.state == "sent" for write in self.writes)

    def ask(self, value: str) -> None:
        self.request = value
        self.server.news(self.in_flight)

    def restart(self) -> None:
        self.start()
        self.server.news(self.in_flight)

    def view(self) -> SessionState:
        meta = self.seen.meta()
        runner = pod(
            created_s=NOW_S - 1000,
            annotations={NAMES.requested_at: self.request} if self.request else {},
        )
        record = last_applied(self.record, meta)
        return SessionState(KEY, runner, meta, Confirmation.YES, is_running=True, record=record)

    def decide(self) -> tuple[SessionState, Plan]:
        view = self.view()
        policy = DecisionContext(
            names=NAMES,
            propagation_s=90.0,
            longest_ttl_s=LIFE_S,
            static=self.issuer == "static",
            term=self.term,
            term_started_s=NEVER,
            startup="all",
            replaced_s=self.replaced_s,
            generation=self.generation,
        )
        return view, self.planned(view, policy)

    def planned(self, view: SessionState, policy: DecisionContext) -> Plan:
        """Plan by the ownership that this agent believes in."""
        assert view.secret is not None
        answer = view.record.response if view.record is not None else None
        found = self.owner(view.secret, answer)
        if found is owner_of(view.secret, US, answer):
            return plan(view, policy, self.now_s)
        others: dict[str, Any] = {"field_managers": ("platform",), "foreign_s": None}
        believed: dict[Owner, dict[str, Any]] = {
            Owner.OURS: {"field_managers": (US,)},
            Owner.FOREIGN: others,
            Owner.UNCLEAR: others,
            Owner.UNOWNED: {"field_managers": ()},
        }
        fields: dict[str, Any] = {
            name: getattr(view.secret, name) for name in view.secret.__struct_fields__
        }
        shown = structs.replace(view, secret=ObjectMeta(**(fields | believed[found])), record=None)
        return plan(shown, policy, self.now_s)

    def act(self) -> Write | None:
        """Do what is planned, if it is a write and has a reason; one is under way at a time."""
        if self.waiting is not None:
            return None
        view, found = self.decide()
        if found.action is not Action.WRITE or view.secret is None or found.annotations is None:
            return None
        token = self.token()
        facts, now_s = found.annotations, self.server.now_s
        promised = found.reason in ("startup_resync", "requested")
        ends_s = facts.expires_s
        if ends_s is not None and token.expires_s <= ends_s and not promised:
            return None
        owner = self.owner(view.secret, view.record.response if view.record is not None else None)
        evidence = Evidence(self.term, self.generation, frozenset(found.requests))
        left_s = token.expires_s - token.issued_s - (now_s - token.born_s)
        ttl_s = token.expires_s - token.issued_s
        life = life_of(token.expires_s, ttl_s=ttl_s, remaining_s=left_s)
        self.check_accusation(view, owner)
        if self.wait(view.record, view.secret, owner, evidence, life) > 0:
            return None
        return self.send(view.secret, token, evidence, life)

    def monotonic(self) -> Instant:
        return Instant(float(self.server.now_s))

    def send(self, meta: ObjectMeta, token: Token, evidence: Evidence, life: TokenLife) -> Write:
        endless = math.isinf(token.expires_s)
        sent = (
            format_utc_millis(self.now_s),
            self.term,
            None if endless else format_utc(token.issued_s),
            None if endless else format_utc(token.expires_s),
        )
        record = WriteRecord(meta.uid, sent, evidence, *life, self.monotonic())
        annotations: dict[str, str | None] = {
            NAMES.refreshed_at: sent[0],
            NAMES.refreshed_by: sent[1],
            NAMES.issued_at: sent[2],
            NAMES.expires_at: sent[3],
            NAMES.handled_requests: ",".join(sorted(evidence.requests)) or None,
        }
        if not evidence.requests and NAMES.handled_requests in self.seen.annotations:
            annotations[NAMES.handled_requests] = self.seen.annotations[NAMES.handled_requests]
        write = Write(
            int(meta.version), token, annotations, record, self.record, self.term,
            at_server=len(self.writes),
        )  # fmt: skip
        self.record = record.following(self.record)
        self.writes.append(write)
        self.waiting = write
        return write

    def arrive(self, write: Write) -> None:
        """Let a write reach the server, which applies it or not; admission may strip it."""
        if write.state != "sent":
            return
        write.state = "arrived"
        server = self.server
        if server.current.version != write.version:
            return
        annotations = {} if self.stripping else write.annotations
        made = server.change(US, write.at_server, value=write.token.value, annotations=annotations)
        write.applied = made or server.current
        write.stripped = self.stripping
        if made is not None:
            write.applied_s = server.now_s
            self.check_budget(write)

    def answer(self, write: Write) -> None:
        """Let the answer reach us, if we are still the process that waits for it."""
        if write.state != "arrived":
            return
        write.state = "answered"
        if self.waiting is not write:
            return
        self.waiting = None
        write.heard = True
        if write.applied is None:
            self.record = write.before
            return
        meta = write.applied.meta()
        if self.record is not None:
            self.record = self.record.record_response(meta, now_at=self.monotonic())
        self.see(write.applied)

    def lose(self) -> None:
        """The answer that is waited for never comes."""
        if self.waiting is not None:
            self.waiting = None
            if self.server.current.owner != US:
                self.server.news(self.in_flight)  # whose an equal token is has become unclear

    def see(self, state: State) -> None:
        if state.version > self.seen.version:
            self.seen = state

    def act_at_once(self) -> bool:
        """Act on a network that takes no time; tell whether something was written."""
        write = self.act()
        if write is None:
            return False
        self.arrive(write)
        self.answer(write)
        return write.applied is not None

    def come_to_rest(self) -> None:
        """Hear everything and act until nothing is written any more."""
        if self.waiting is not None:
            self.arrive(self.waiting)
            if self.waiting is not None:
                self.answer(self.waiting)
        for _ in range(10):
            self.see(self.server.current)
            if not self.act_at_once():
                break
        self.check_repaired()

    # The promises.

    def check_budget(self, write: Write) -> None:
        """Three writes in a fifth of a life without news; one of a token without an end.

        A write that admission strips and whose answer is lost does not count: it leaves what a
        write that never arrived leaves, a token of ours without a word about it, and to hold back
        the next one might cost a session its token. What bounds these is the source: a token that
        is there already changes nothing, so that the next one that does has another token, or
        admission lets its annotations in again.
        """
        server, token = self.server, write.token
        endless = math.isinf(token.expires_s)
        blind = [each for each in server.ours if each.is_blind]
        apart_s = [abs(token.born_s - each.token.born_s) for each in blind]
        if not endless and any(0 < seconds <= FRESH_S for seconds in apart_s):
            raise Broken("another token so soon, though nothing is known of the write before")
        server.ours.append(write)
        left_s = token.born_s + LIFE_S - server.now_s
        window_s = math.inf if endless else WINDOW * (left_s if self.issuer == "cached" else LIFE_S)
        made = [
            each.applied_s
            for each in server.ours
            if (each is write or not each.is_blind) and server.now_s - each.applied_s < window_s
        ]
        # The next edit of others shows it to be unclear whose an equal token is, once.
        unclear = server.noise and server.current.owner != US
        allowed = (1 + unclear if endless else BUDGET) + server.in_flight
        if len(made) > allowed:
            raise Broken(f"{len(made)} writes without news: {made}")

    def check_accusation(self, view: SessionState, owner: Owner) -> None:
        """No writer is accused that wrote nothing after our last write."""
        if undone(view.record, view.secret, owner) != "token" or view.record is None:
            return
        answer = view.record.response
        assert answer is not None
        if self.server.foreign_version <= int(answer.version):
            raise Broken("an overwrite is seen where no other wrote")

    def check_repaired(self) -> None:
        """At rest the token is one of ours, or it cannot be known that it is not."""
        state = self.server.current
        if not state.tracked:
            return
        if self.issuer == "static":
            if state.value != self.minted[-1].value:
                raise Broken(f"{state.value} stays")
        elif state.value not in {token.value for token in self.minted}:
            raise Broken(f"{state.value} stays")
