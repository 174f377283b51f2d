"""Every reason that the plan gives has a description."""

import ast
import inspect
from pathlib import Path

from reconciler.controller.decide import refresh_plan
from reconciler.controller.decide.block_reasons import BlockReason
from reconciler.statuspage.texts import REASONS


def test_every_reason_that_the_plan_can_give_has_words() -> None:
    tree = ast.parse(Path(inspect.getsourcefile(refresh_plan) or "").read_text())
    texts = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    codes = {text for text in texts if text.isidentifier() and "_" in text}
    fields = {"running", "started_s"}
    assert codes - REASONS.keys() - set(BlockReason) - fields == set()
