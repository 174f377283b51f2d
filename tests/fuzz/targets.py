"""The parsers of bytes from outside, each as a function of bytes."""

import asyncio
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import msgspec
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser

from reconciler.cli import jsonpath
from reconciler.cli.exit_codes import CommandError
from reconciler.cli.settings import effective_settings
from reconciler.clock import Instant, SystemClock, format_utc
from reconciler.controller.decide.confirmation_mac import ConfirmationMac
from reconciler.controller.decide.refresh_plan import plan
from reconciler.controller.status import session_reading
from reconciler.errors import (
    IssuerError,
    KubeError,
    PlatformError,
    ProtocolError,
    SettingsError,
)
from reconciler.factories import static_source
from reconciler.inspection.events import event_resource, summaries
from reconciler.inspection.pod_token import assess
from reconciler.inspection.replicas import replica_of, replica_resource
from reconciler.kube.api import ApiResource, ObjectMeta, is_newer
from reconciler.kube.auth import exec_plugin
from reconciler.kube.auth.contexts import context_names, read_context
from reconciler.kube.auth.credentials import find_credentials
from reconciler.kube.auth.redaction import LIMIT, shown_output
from reconciler.kube.auth.token_file import TokenFile
from reconciler.kube.decoding import metadata_resource
from reconciler.kube.secret_mounts import secret_mounts_resource
from reconciler.kube.status_errors import from_response
from reconciler.leadership import lease
from reconciler.leadership.election_rules import decide, observe
from reconciler.leadership.lease import Identity
from reconciler.leadership.lease_timing import ElectionTiming
from reconciler.net.http_dates import MAX_RETRY_AFTER_S, parse_date, parse_retry_after
from reconciler.net.proxies import proxy_for
from reconciler.platform import errors as platform_errors
from reconciler.platform.models import (
    PlatformPage,
    PlatformProject,
    PlatformSession,
    decode,
    namespace_of,
)
from reconciler.preflight.access_review import REVIEWS
from reconciler.settings import load_settings, parse_shard, unknown_variables
from reconciler.statuspage.page_model import PageModel
from reconciler.statuspage.query import SessionQuery, select
from reconciler.statuspage.render import Render
from reconciler.telemetry.otlp_settings import export_timeout_s, read_otlp
from reconciler.tokens.claims import read_claims
from reconciler.tokens.issuer_time import IssuerTime
from reconciler.tokens.token_response import RawResponse, parse_token_response, to_token
from tests.exhibit import IDENTITY, row, survey, trend_of
from tests.support import ManualClock
from tests.unit.controller.build import (
    KEY,
    NAMES,
    NOW_S,
    decision_context,
    pod,
    secret,
    session_state,
)

CORPUS = Path(__file__).parent / "corpus"
FOLDER = Path(tempfile.mkdtemp(prefix="reconciler-fuzz-"))


@dataclass(frozen=True)
class Target:
    """One kind of bytes.

    Args:
        name: Of the folder of its samples.
        parse: Reads the bytes as the product does, and uses what it has read.
        errors: What the parser documents; another exception is a fault.
        modules: The modules of reconciler/ with the parsers that it reaches.
    """

    name: str
    parse: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]
    modules: tuple[str, ...]

    @property
    def samples(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted((CORPUS / self.name).iterdir())]

    def run(self, data: bytes) -> None:
        """Parse; raises what the parser does not document."""
        with suppress(*self.errors):
            self.parse(data)


# What the API server sends.

PODS, SECRETS = metadata_resource("pods", NAMES), metadata_resource("secrets", NAMES)
EVENTS, LEASES, REPLICAS = event_resource(), lease.lease_resource(), replica_resource()
MOUNTS = secret_mounts_resource(NAMES)
MAC = ConfirmationMac("obviously-fake-client-secret")
ME, TIMING = Identity("replica-0", "pod-0", "me"), ElectionTiming()


def use_meta(meta: ObjectMeta) -> None:
    """Decide on an object in the place of a Secret and of a pod, and show what is decided."""
    msgspec.json.encode(meta)  # each text may be written to the log
    MAC.is_from_current_key(meta.annotations.confirmation or "", meta.key, meta.uid)
    is_newer(meta.version, "20")
    for held, on in ((meta, pod()), (secret(), meta), (meta, None)):
        for is_static in (False, True):
            context = decision_context(static=is_static)
            plan(replace_state(on, held), context, NOW_S)
            session_reading.read(KEY, on, held, context, NOW_S)
            assess(on or pod(), held, context, NOW_S)


def replace_state(on: ObjectMeta | None, held: ObjectMeta) -> Any:
    return msgspec.structs.replace(session_state(), pod=on, secret=held)


def watch_line(data: bytes) -> None:
    for kind in (PODS, SECRETS):
        event = kind.decode_event(data)
        msgspec.json.encode(event.version)
        if event.object is not None:
            use_meta(event.object)


def list_page(data: bytes) -> None:
    for kind in (PODS, SECRETS):
        page = kind.decode_page(data)
        msgspec.json.encode((page.version, page.continue_token))
        for meta in page.items:
            use_meta(meta)


def annotations(data: bytes) -> None:
    """Take a mapping of names to values as a Secret's annotations."""
    use_meta(SECRETS.decode(b'{"metadata":{"name":"s","namespace":"team-a","uid":"u",'
        b'"resourceVersion":"7","labels":{"%s":"%s"},"annotations":%s}}'
        % (NAMES.session_id.encode(), KEY.session_id.encode(), data)))  # fmt: skip


def lease_record(data: bytes) -> None:
    found = LEASES.decode(data)
    record = lease.read(found)
    record.is_held(NOW_S)
    with suppress(ValueError):
        parse_shard((found.metadata.annotations or {}).get(NAMES.shard, ""))
    seen = observe(None, record, record.version, Instant(0), me=ME, timing=TIMING)
    later = observe(seen, record, "99", Instant(1), me=ME, timing=TIMING, authoritative=True)
    for each in (seen, later):
        repr(decide(each, None, Instant(9), me=ME, timing=TIMING, token_life_s=900.0))
    spec = lease.holder_spec(record, str(ME), lease_s=15, transitions=1, wall_s=NOW_S)
    msgspec.json.encode(lease.patch_of(record, spec, {}))


def other_objects(data: bytes) -> None:
    """Take the bytes for each kind that a command reads, alone, in a list and in a watch."""

    def every(kind: ApiResource[Any], use: Callable[[Any], object]) -> None:
        for read in (
            lambda: [kind.decode(data)],
            lambda: (
                kind.decode_page(b'{"metadata":{"resourceVersion":"1"},"items":[%s]}' % data).items
            ),
            lambda: [kind.decode_event(b'{"type":"ADDED","object":%s}' % data).object],
        ):
            with suppress(ProtocolError, KubeError):
                for each in read():
                    use(each)

    every(EVENTS, lambda found: summaries([found] if found else [], NAMES))
    every(REPLICAS, lambda found: found and replica_of(found))
    every(MOUNTS, repr)
    every(REVIEWS, repr)


def refusal(data: bytes) -> None:
    for code in (400, 403, 409, 410, 500, 503):
        found = from_response(code, data, what="list pods")
        assert found.retry_after_s is None or 0 <= found.retry_after_s < math.inf
        msgspec.json.encode(str(found))


# What issuer and platform send.

REQUEST = "token request to http://issuer.example/token"


def jwt(data: bytes) -> None:
    value = data.decode("utf-8", "surrogateescape")
    for lenient in (False, True):
        with suppress(IssuerError):
            claims = read_claims(value, lenient=lenient)
            for instant_s in (claims.issued_s, claims.expires_s):
                assert instant_s is None or format_utc(instant_s)


def token_response(data: bytes) -> None:
    """Take the bytes for the body of each status, after a line with its Date."""
    date, _, body = data.partition(b"\n")
    date_s = parse_date(date.decode("utf-8", "surrogateescape"))
    for status in (200, 201, 302, 400, 401, 403, 429, 500):
        with suppress(IssuerError):
            raw = RawResponse(status, body, Instant(1000), Instant(1001), date_s)
            response = parse_token_response(raw, request=REQUEST)
            issuer_time = IssuerTime(ManualClock())
            to_token(response, now_s=issuer_time.observe(response.times, date_s))
            token = to_token(response, now_s=issuer_time.settle(response.times))
            assert not token.expires_text or token.issued_text
            assert repr(token)
            format_utc(issuer_time.now_s() + 10 * 365 * 86_400)


def platform_answer(data: bytes) -> None:
    for model in (PlatformPage[PlatformSession], PlatformPage[PlatformProject], PlatformSession):
        with suppress(ProtocolError):
            found: Any = decode(model, data)
            for each in found.readable if isinstance(found, PlatformPage) else [found]:
                msgspec.json.encode(each.id)
                if isinstance(each, PlatformSession):
                    msgspec.json.encode([namespace_of(each, mode) for mode in ("standard", "mpp")])
    for status in (200, 400, 401, 403, 404, 429, 500):
        platform_errors.error_of(platform_errors.ErrorAnswer(status, data, None), what="list")


def header_times(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    for now_s in (NOW_S, None):
        wait_s = parse_retry_after(text, now_s=now_s)
        assert wait_s is None or 0 <= wait_s <= MAX_RETRY_AFTER_S
    date_s = parse_date(text)
    assert date_s is None or format_utc(date_s)


# What people and their programs write.


def written(data: bytes) -> Path:
    file = FOLDER / "file"
    file.write_bytes(data)
    return file


def kubeconfig(data: bytes) -> None:
    path = str(written(data))

    async def load() -> None:
        credentials = find_credentials(path, SystemClock())
        urlsplit((await credentials.connection()).url)
        await credentials.headers()

    for read in (
        lambda: context_names(path),
        lambda: read_context(path, None),
        lambda: asyncio.run(load()),
    ):
        with suppress(SettingsError):
            read()


PLUGIN = exec_plugin.Plugin("plug-in", "client.authentication.k8s.io/v1")


def exec_output(data: bytes) -> None:
    shown = shown_output(data)
    assert len(shown) <= LIMIT
    assert shown.isprintable()
    found = exec_plugin._credential(PLUGIN, data, shown)
    assert not found.token or found.token not in repr(found)


def token_file(data: bytes) -> None:
    file = written(data)
    value = TokenFile(file, SystemClock()).value()
    assert value.isascii()
    assert value.isprintable()
    with environment({"AMBIENT_API_TOKEN_FILE": str(file)}):
        static_source(load_settings(), SystemClock())


def variables(data: bytes) -> Mapping[str, str]:
    """Return the lines `NAME=value` as a process gets them: no null byte, lone surrogates."""
    text = data.replace(b"\0", b"").decode("utf-8", "surrogateescape")
    lines = (line.partition("=") for line in text.split("\n"))
    return {name: value for name, sign, value in lines if name and sign}


@contextmanager
def environment(found: Mapping[str, str]) -> Iterator[None]:
    with patch.dict(os.environ, found, clear=True):
        yield


def settings(data: bytes) -> None:
    found = variables(data)
    with suppress(UnicodeEncodeError), environment(found):
        unknown_variables(found)
        loaded = load_settings()
        effective_settings(loaded, found)
        loaded.names(), loaded.token_request_fields(), loaded.credential_files()


def proxy_variables(data: bytes) -> None:
    found = variables(data)
    for url in ("https://issuer.example:8443/token", "http://10.0.0.1:8080", "https://[::1]:6443"):
        with suppress(SettingsError):
            proxy_for(url, found)


def otlp_variables(data: bytes) -> None:
    found = variables(data)
    assert 0 <= read_otlp(found).ratio <= 1
    assert 0 < export_timeout_s(found) < math.inf


def template(data: bytes) -> None:
    parsed = jsonpath.parse(data.decode("utf-8", "surrogateescape"))
    jsonpath.render(parsed, {"items": [{"name": "a", "life": 1.5, "none": None}, {"name": "b"}]})


# What a reader of the status page sends.

SHOWN = survey([row(number) for number in range(30)])
RENDER = Render(IDENTITY)


def page_request(data: bytes) -> None:
    """Take the bytes for the target of a request to the page."""
    loop = asyncio.new_event_loop()
    try:
        parser = HttpRequestParser(BaseProtocol(loop), loop, 2**16)
        messages, _, _ = parser.feed_data(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % data)
        for message, _ in messages:
            query = SessionQuery.parse(message.url.query)
            result = select(SHOWN.rows, query)
            runs: Any = {row.key: () for row in result.rows}
            model = PageModel(SHOWN, SHOWN.rows, query, result, runs, {}, trend_of(), "")
            for form in ("page", "part", "json"):
                RENDER.view(model, form).encode()
    finally:
        loop.close()


KUBE = (ProtocolError, KubeError)
_DECODERS = (
    "kube/decoding.py",
    "kube/api.py",
    "clock.py",
    "controller/runtime.py",
    "cli/cluster.py",
)

TARGETS = (
    Target("watch_line", watch_line, KUBE, (*_DECODERS, "controller/decide/pod_touches.py")),
    Target("list_page", list_page, KUBE, ()),
    Target("annotations", annotations, KUBE, ()),
    Target("lease", lease_record, KUBE, ("leadership/lease.py", "preflight/shards.py")),
    Target("other_objects", other_objects, (), (
        "inspection/events.py", "inspection/replicas.py", "kube/secret_mounts.py",
        "preflight/access_review.py", "controller/events/event_object.py",
    )),
    Target("refusal", refusal, (), ("kube/status_errors.py",)),
    Target("jwt", jwt, (), ("tokens/claims.py",)),
    Target("token_response", token_response, (), ("tokens/token_response.py",)),
    Target("platform", platform_answer, (PlatformError,), ("platform/models.py",)),
    Target("header_times", header_times, (), ("net/http_dates.py",)),
    Target("kubeconfig", kubeconfig, (), (
        "kube/auth/kubeconfig.py", "kube/auth/kubeconfig_fields.py", "kube/auth/connection.py",
        "kube/auth/contexts.py",
    )),
    Target("exec_output", exec_output, (SettingsError,), (
        "kube/auth/exec_plugin.py", "kube/auth/redaction.py",
    )),
    Target("token_file", token_file, (SettingsError,), ("kube/auth/token_file.py", "factories.py")),
    Target("settings", settings, (SettingsError,), ("settings.py", "cli/settings.py")),
    Target("proxies", proxy_variables, (), ("net/proxies.py",)),
    Target("otlp_variables", otlp_variables, (), ("telemetry/otlp_settings.py",)),
    Target("jsonpath", template, (CommandError,), ("cli/jsonpath.py",)),
    Target("page_request", page_request, (HttpProcessingError,), (
        "statuspage/query.py", "statuspage/server.py", "statuspage/sse.py",
    )),
)  # fmt: skip
