"""The page's routes, and the headers that limit a browser to showing it."""

from collections.abc import Awaitable, Callable
from hashlib import blake2b
from importlib.resources import files

from aiohttp import ETag, web

from reconciler.clock import Clock
from reconciler.statuspage.cache import PageCache, PageSource, TooManyReaders
from reconciler.statuspage.identity import PageIdentity
from reconciler.statuspage.query import SessionQuery
from reconciler.statuspage.sse import SseStreams

POLICY = "; ".join((
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
))  # fmt: skip

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

STATIC = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def mount(
    source: PageSource,
    *,
    not_ready: Callable[[], str],
    identity: PageIdentity,
    clock: Clock,
) -> Callable[[web.Application], None]:
    """Return a function that adds the page to an application, also as JSON and as events.

    Every response of that application, errors too, has `HEADERS`, and is not cached.
    """

    def add(app: web.Application) -> None:
        views = PageCache(source, not_ready=not_ready, identity=identity)
        add_page(app, views, SseStreams(views, clock))

    return add


def add_page(app: web.Application, views: PageCache, streams: SseStreams) -> None:
    """Add the page to an application without routes at these paths."""
    app.router.add_get("/", _view(views.page, "text/html"))
    app.router.add_get("/view.json", _view(views.json, "application/json"))
    app.router.add_get("/events", streams.handle, allow_head=False)
    for name, kind in STATIC.items():
        app.router.add_get(f"/{name}", _static(name, kind))
    app.on_response_prepare.append(_protect)
    app.on_shutdown.append(lambda _: streams.close())


async def _protect(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
    response.headers["Server"] = "token-reconciler"
    response.headers.setdefault("Cache-Control", "no-store")


def _view(render: Callable[[SessionQuery], Awaitable[str]], kind: str) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        try:
            text = await render(SessionQuery.parse(request.query))
        except TooManyReaders as error:
            return web.Response(status=503, text=f"{error}\n", headers={"Retry-After": "2"})
        return web.Response(text=text, content_type=kind)

    return handle


def _static(name: str, kind: str) -> Handler:
    """Serve a file of the package; browsers revalidate it at each use."""
    body = files("reconciler.statuspage").joinpath("static", name).read_bytes()
    tag = ETag(blake2b(body, digest_size=12).hexdigest())

    async def handle(request: web.Request) -> web.Response:
        known = tag in (request.if_none_match or ())
        response = web.Response(status=304) if known else web.Response(body=body)
        response.content_type = kind
        response.charset = "utf-8"
        response.etag = tag
        response.headers["Cache-Control"] = "no-cache"
        return response

    return handle
