"""Every reason that the plan gives has words, and a row's next step reads like a sentence."""

import ast
import inspect
from pathlib import Path

import msgspec
import pytest

from reconciler.controller.decide import plan
from reconciler.controller.decide.token_state import TokenState
from reconciler.controller.status import reasons
from reconciler.controller.status.snapshot import SessionStatus

ROW = SessionStatus(
    namespace="team-a", session_id="2Aa", project="team-a", pod="pod", secret="secret",
    state=TokenState.OK, expires_s=1000.0, remaining_s=100.0, due_s=960.0, reason="renewal",
    stage="waiting", blocked_on="", hold="", failures=0, refreshed_by="r/1",
)  # fmt: skip


def test_every_reason_that_the_plan_can_give_has_words() -> None:
    tree = ast.parse(Path(inspect.getsourcefile(plan) or "").read_text())
    texts = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    codes = {text for text in texts if text.isidentifier() and "_" in text}
    fields = {"running", "started_s"}
    assert codes - reasons.REASONS.keys() - reasons.HOLDS.keys() - fields == set()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "due in 60 s: renewal, on the session's own grid"),
        ({"due_s": 890.0, "reason": "expired"}, "due for 10 s: its token has expired"),
        ({"stage": "running"}, "being worked on: renewal, on the session's own grid"),
        ({"hold": "paused"}, "paused by annotation: nothing is written until that is removed"),
        ({"due_s": None}, "nothing is planned"),
        (
            {"blocked_on": "issuer", "failures": 3},
            "waits because the issuer gives no token; renewal, on the session's own grid",
        ),
        (
            {"failures": 1, "due_s": 905.0},
            "failed once, tried again in 5 s; renewal, on the session's own grid",
        ),
        ({"reason": "something_new"}, "due in 60 s: something_new"),
    ],
    ids=["due", "late", "running", "paused", "never", "fence", "failed", "no words"],
)
def test_the_next_step_is_a_sentence(changes: dict[str, object], sentence: str) -> None:
    row = msgspec.structs.replace(ROW, **changes)
    assert reasons.next_step(row, 900.0) == sentence
