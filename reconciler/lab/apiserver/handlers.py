"""One HTTP request: authentication, authorization, and the core's answer."""

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from reconciler.clock import Clock
from reconciler.lab.apiserver import kinds, protobuf, request_info, status_errors
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.discovery import document, is_known_group
from reconciler.lab.apiserver.kinds import Object
from reconciler.lab.apiserver.merge_patch import without_directives
from reconciler.lab.apiserver.rbac import ANONYMOUS, Attributes, Authorizer, User, denied_path
from reconciler.lab.apiserver.representations import (
    Representation,
    encode,
    list_bytes,
    object_bytes,
    parse_accept,
)
from reconciler.lab.apiserver.request_info import RequestTarget
from reconciler.lab.apiserver.status_errors import StatusError
from reconciler.lab.apiserver.write_log import Caller

BODY_LIMIT_BYTES = 3 * 1024 * 1024
"""Source: apiserver, MaxRequestBodyBytes."""

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"

PREFIX = "/token/"

_NAMED = ("get", "update", "patch", "delete")
"""Verbs on one object; the other verbs are for the collection."""

_HEALTH = ("/livez", "/readyz", "/healthz")
_JSON = ("", "application/json", "application/octet-stream")


def split_path(path: str) -> tuple[str, str]:
    """Return the token at the start of a path, or "", and the path of the API.

    kubectl sends no token over plain HTTP (client-go `clientcmd`, IsConfigTransportTLS). Its server
    URL ends in `/token/TOKEN` instead: a server URL may have a path, as it has behind a proxy.
    """
    if not path.startswith(PREFIX):
        return "", path
    token, _, rest = path.removeprefix(PREFIX).partition("/")
    return token, f"/{rest}"


def authenticate(authorizer: Authorizer, request: web.BaseRequest, token: str) -> User:
    """Return the user; raises `StatusError` 401 for an unknown token.

    Args:
        token: From the path; used if no header has one.
    """
    scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
    token = sent.strip() if scheme.lower() == "bearer" and sent.strip() else token
    if not token:
        return ANONYMOUS
    user = authorizer.user_of(token)
    if user is None:
        raise status_errors.unauthorized()
    return user


def answer_path(user: User, method: str, path: str) -> web.Response:
    """Answer a request for a path that is no resource: health, version, discovery, or 404."""
    if path in _HEALTH:
        return web.Response(text="ok")
    if user is ANONYMOUS and path != "/version":
        raise denied_path(user, method.lower(), path)
    found = document(path)
    if found is None and is_known_group(path):
        raise status_errors.no_such_resource()
    if found is None:
        return web.Response(status=404, text="404 page not found\n")
    return json_response(encode(found))


class ApiHandlers:
    """Answers requests for resources, except watches, which are streams."""

    def __init__(self, core: Core, authorizer: Authorizer, clock: Clock) -> None:
        self._core = core
        self._authorizer = authorizer
        self._clock = clock

    async def answer(
        self, request: web.BaseRequest, user: User, target: RequestTarget, asked: Attributes
    ) -> web.Response:
        """Execute an authorized request. Raises `StatusError`."""
        if asked.verb not in target.kind.verbs or (asked.verb in _NAMED) is not bool(target.name):
            raise status_errors.method_not_allowed()
        query = dict(request.query)
        representation = parse_accept(request.headers.get("Accept", ""))
        caller = request_info.caller_of(user.name, request.headers.get("User-Agent", ""), query)
        if asked.verb == "list":
            return self._list(target, query, representation)
        if asked.verb == "get":
            version = query.get("resourceVersion", "")
            item = self._core.get(target.kind, target.namespace, target.name, version=version)
            return self._object(target, item, representation)
        body = await read_body(request)
        if asked.verb in ("delete", "deletecollection"):
            return self._delete(target, query, body, caller, representation)
        if asked.verb == "create":
            return self._create(target, body, caller, user, representation)
        return self._change(request, target, body, caller, representation)

    def _list(
        self, target: RequestTarget, query: Mapping[str, str], representation: Representation
    ) -> web.Response:
        selection, wanted = (
            request_info.selection_of(target, query),
            request_info.list_query_of(query),
        )
        listing = self._core.list(target.kind, selection, wanted)
        return json_response(
            list_bytes(target.kind, listing, representation, now_s=self._clock.wall())
        )

    def _create(
        self,
        target: RequestTarget,
        body: Mapping[str, Any],
        caller: Caller,
        user: User,
        representation: Representation,
    ) -> web.Response:
        if target.kind is kinds.ACCESS_REVIEWS:
            return json_response(encode(self._authorizer.review_access(user, body)), status=201)
        if target.kind is kinds.TOKEN_REVIEWS:
            return json_response(encode(self._authorizer.review_token(body)), status=201)
        item = self._core.create(target.kind, target.namespace, body, by=caller)
        return self._object(target, item, representation, status=201)

    def _change(
        self,
        request: web.BaseRequest,
        target: RequestTarget,
        body: Mapping[str, Any],
        caller: Caller,
        representation: Representation,
    ) -> web.Response:
        where = target.kind, target.namespace, target.name
        if request.method == "PUT":
            item = self._core.update(*where, body, by=caller, subresource=target.subresource)
            return self._object(target, item, representation)
        if request.content_type not in (MERGE, STRATEGIC):
            raise status_errors.unsupported_patch()
        if request.content_type == STRATEGIC:
            body = without_directives(body)
        item = self._core.patch(*where, body, by=caller, subresource=target.subresource)
        return self._object(target, item, representation)

    def _delete(
        self,
        target: RequestTarget,
        query: Mapping[str, str],
        body: Mapping[str, Any],
        caller: Caller,
        representation: Representation,
    ) -> web.Response:
        kind, options = target.kind, request_info.delete_options_of(body, query)
        if not target.name:
            listing = self._core.list(kind, request_info.selection_of(target, query))
            for item in listing.items:
                metadata = item["metadata"]
                namespace = metadata.get("namespace", "")
                self._core.delete(kind, namespace, metadata["name"], options, by=caller)
            return json_response(
                list_bytes(kind, listing, representation, now_s=self._clock.wall())
            )
        deleted = self._core.delete(kind, target.namespace, target.name, options, by=caller)
        if kind.answers_deleted or not deleted.removed:
            return self._object(target, deleted.object, representation)
        return json_response(encode(_success(target, deleted.object)))

    def _object(
        self,
        target: RequestTarget,
        item: Object,
        representation: Representation,
        *,
        status: int = 200,
    ) -> web.Response:
        data = object_bytes(target.kind, item, representation, now_s=self._clock.wall())
        return json_response(data, status=status)


async def read_body(request: web.BaseRequest) -> Mapping[str, Any]:
    """Return the object of a body, {} if it is empty; raises `StatusError` 400, 413, 415."""
    data = bytearray()
    async for chunk in request.content.iter_any():
        data += chunk
        if len(data) > BODY_LIMIT_BYTES:
            message = f"Request entity too large: limit is {BODY_LIMIT_BYTES}"
            raise status_errors.refuse(413, "RequestEntityTooLarge", message)
    if not data:
        return {}
    if request.method != "PATCH" and request.content_type == protobuf.MEDIA_TYPE:
        return protobuf.decode(bytes(data))
    if request.method != "PATCH" and request.content_type not in _JSON:
        raise status_errors.unsupported_media_type(_JSON[1:2])
    try:
        body = msgspec.json.decode(bytes(data))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise status_errors.bad_request("the body of the request is not JSON") from error
    if not isinstance(body, dict):
        raise status_errors.bad_request("the body of the request is not a JSON object")
    return body


def json_response(data: bytes, *, status: int = 200) -> web.Response:
    return web.Response(body=data, status=status, content_type="application/json")


def error_response(refusal: StatusError) -> web.Response:
    """Return the Status as an answer, with Retry-After where it says so."""
    headers = {"Retry-After": str(refusal.retry_after_s)} if refusal.retry_after_s else {}
    return web.Response(
        body=encode(refusal.status),
        status=refusal.code,
        headers=headers,
        content_type="application/json",
    )


def _success(target: RequestTarget, item: Object) -> dict[str, Any]:
    metadata = item["metadata"]
    details = {"name": metadata["name"], "kind": target.kind.plural, "uid": metadata["uid"]}
    if target.kind.group:
        details["group"] = target.kind.group
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    }
