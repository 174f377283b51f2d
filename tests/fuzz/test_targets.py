"""No bytes from outside raise anything but what their parser documents."""

import re
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import reconciler
from tests.fuzz.mutation import mutated
from tests.fuzz.targets import TARGETS, Target
from tests.interleavings import interleavings

PRODUCT = Path(reconciler.__file__).parent
pytestmark = pytest.mark.shows_secrets("random texts: what is read as a token is none")

EXAMPLES = 200
"""Of each target; all of them together take some 20 s. `make fuzz` runs more."""

READS = re.compile(
    r"msgspec\.json\.(?:Decoder|decode)\b|msgspec\.convert|json\.loads|safe_load|fromisoformat"
    r"|parsedate_to_datetime|urlsplit\(|parse_qsl|b64decode|ipaddress\.|isdigit\(|isdecimal\("
    r"|\b(?:struct_decoder|metadata_resource|resource)\(|read_body\(|read_text\(|read_bytes\("
    r"|iter_any|readany|payload\.read\(|request\.query"
)
"""What reads bytes or text from outside."""

OVER_HTTP = "tests/lab/test_hostile_answers.py"
ELSEWHERE = {
    "kube/requests.py": OVER_HTTP,
    "kube/watch.py": OVER_HTTP,
    "net/exchange.py": OVER_HTTP,
    "net/client_session.py": OVER_HTTP,
    "platform/client.py": OVER_HTTP,
    "tokens/oidc.py": OVER_HTTP,
    "telemetry/otlp_adapter.py": OVER_HTTP,
    # What these read is no peer's: files of the package or the kernel, and URLs of settings.
    "kube/auth/child_processes.py": "tests/unit/test_entry.py",
    "net/file_rotation.py": "tests/unit/test_rotation.py",
    "net/urls.py": "tests/unit/test_urls.py",
    "preflight/checks.py": "tests/cluster/test_check.py",
    "preflight/environment.py": "tests/unit/preflight/test_environment.py",
    "telemetry/otlp_spans.py": "tests/unit/telemetry/test_otlp_spans.py",
}
"""Modules that read bytes in a way that no target reaches, each with its test."""


def test_each_module_that_reads_bytes_from_outside_has_a_target_or_a_test() -> None:
    found = {
        str(path.relative_to(PRODUCT))
        for path in PRODUCT.rglob("*.py")
        if "lab" not in path.relative_to(PRODUCT).parts and READS.search(path.read_text())
    }
    reached = {module for target in TARGETS for module in target.modules}
    assert found - reached - ELSEWHERE.keys() == set()
    assert [name for name in reached if not (PRODUCT / name).exists()] == []
    assert [file for file in ELSEWHERE.values() if not (PRODUCT.parent / file).exists()] == []


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_every_sample_is_read_without_another_error(target: Target) -> None:
    assert target.samples
    for sample in target.samples:
        target.run(sample)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_no_changed_sample_raises_an_undocumented_error(target: Target) -> None:
    @interleavings(EXAMPLES)
    @given(st.sampled_from(target.samples), st.randoms(use_true_random=False))
    def play(sample: bytes, random: Random) -> None:
        target.run(mutated(sample, random))

    play()
