"""A status from the API server -> one error class, and nothing of the body in any message."""

import json
from typing import Any

import pytest

from reconciler import errors
from reconciler.errors import Cause, KubeError
from reconciler.kube.status_errors import from_response

TOO_LARGE = "Too large resource version: 9, current: 1"
MARKER = "m4rker of a value"


def body(**fields: Any) -> bytes:
    return json.dumps({"kind": "Status"} | fields).encode()


QUOTA = (
    'secrets "s" is forbidden: exceeded quota: objects.of-team, requested: count/secrets=1,'
    " used: count/secrets=5, limited: count/secrets=5"
)
WEBHOOK = f'admission webhook "policy.example.invalid" denied the request: {MARKER}'
POLICY = (
    "secrets \"s\" is forbidden: ValidatingAdmissionPolicy 'of-team' with binding 'all' denied"
    f" request: {MARKER}"
)
BY_RBAC = 'secrets is forbidden: User "exceeded quota: x" cannot create resource "secrets"'


CASES: dict[str, tuple[int, bytes, type[KubeError]]] = {
    "400": (400, body(reason="BadRequest"), KubeError),
    "401": (401, body(reason="Unauthorized"), errors.Unauthorized),
    "403": (403, body(reason="Forbidden"), errors.Forbidden),
    "403 of a quota": (403, body(reason="Forbidden", message=QUOTA), errors.QuotaExceeded),
    "403 of a webhook": (403, body(reason="Forbidden", message=WEBHOOK), errors.AdmissionDenied),
    "400 of a webhook": (400, body(reason="BadRequest", message=WEBHOOK), errors.AdmissionDenied),
    "422 of a policy": (422, body(reason="Invalid", message=POLICY), errors.AdmissionDenied),
    "409 of a webhook": (409, body(reason="Conflict", message=WEBHOOK), errors.Conflict),
    "503 of a webhook": (503, body(message=WEBHOOK), errors.ServerError),
    "403 of RBAC": (403, body(reason="Forbidden", message=BY_RBAC), errors.Forbidden),
    "404": (404, body(reason="NotFound"), errors.NotFound),
    "409": (409, body(reason="Conflict"), errors.Conflict),
    "409 exists": (409, body(reason="AlreadyExists"), errors.AlreadyExists),
    "410 gone": (410, body(reason="Gone"), errors.Gone),
    "410 expired": (410, body(reason="Expired"), errors.Gone),
    "422": (422, body(reason="Invalid"), errors.Invalid),
    "429": (429, body(reason="TooManyRequests"), errors.TooManyRequests),
    "500": (500, body(reason="InternalError"), errors.ServerError),
    "503 text": (503, b"no healthy upstream", errors.ServerError),
    "504": (504, body(reason="Timeout"), errors.ServerError),
    "302 empty": (302, b"", KubeError),
    "403 HTML": (403, b"<html>", errors.Forbidden),
    "410 array": (410, b"[]", errors.Gone),
    "404 null": (404, b"null", errors.NotFound),
    "409 wrong types": (409, body(code="x", details=5), errors.Conflict),
    "429 not UTF-8": (429, b'{"reason":"\xff"}', errors.TooManyRequests),
    "null details": (403, body(details=None), errors.Forbidden),
    "null causes": (422, body(details={"causes": None}), errors.Invalid),
    "too large by cause": (
        504,
        body(reason="Timeout", details={"causes": [{"reason": "ResourceVersionTooLarge"}]}),
        errors.ResourceVersionTooLarge,
    ),
    "too large by a cause's message": (
        504,
        body(reason="Timeout", details={"causes": [{"message": TOO_LARGE}]}),
        errors.ResourceVersionTooLarge,
    ),
    "too large by message": (504, body(message=TOO_LARGE), errors.ResourceVersionTooLarge),
}


@pytest.mark.parametrize("case", CASES)
def test_each_answer_has_exactly_one_class(case: str) -> None:
    code, data, expected = CASES[case]
    error = from_response(code, data, what="GET x")
    assert type(error) is expected
    assert error.status == code


def test_a_status_lends_its_facts() -> None:
    causes = [{"reason": "FieldValueInvalid", "message": "no", "field": "metadata.uid"}]
    data = body(reason="Invalid", details={"causes": causes, "retryAfterSeconds": 7})
    error = from_response(422, data, what="PATCH x")
    assert error.causes == (Cause("FieldValueInvalid", "no", "metadata.uid"),)
    assert (error.reason, error.retry_after_s) == ("Invalid", 7.0)
    assert str(error) == "PATCH x: the API server answered 422 Invalid, metadata.uid"


def test_a_422_of_an_immutable_object_says_so() -> None:
    sentence = "Forbidden: field is immutable when `immutable` is set"
    causes = [{"reason": "FieldValueForbidden", "message": sentence, "field": "data"}]
    error = from_response(422, body(reason="Invalid", details={"causes": causes}), what="PATCH x")
    assert str(error) == (
        "PATCH x: the API server answered 422 Invalid, data (the object is immutable)"
    )


@pytest.mark.parametrize(
    ("message", "by"),
    [(QUOTA, ", by quota objects.of-team"), (WEBHOOK, ", by webhook policy.example.invalid"),
     (BY_RBAC, "")],
    ids=["quota", "webhook", "authorizer"],
)  # fmt: skip
def test_a_403_names_who_of_the_admission_plugins_it_comes_from(message: str, by: str) -> None:
    error = from_response(403, body(reason="Forbidden", message=message), what="POST secrets")
    assert str(error) == f"POST secrets: the API server answered 403 Forbidden{by}"


def test_the_header_wins_over_the_body() -> None:
    data = body(details={"retryAfterSeconds": 7})
    assert from_response(429, data, what="x", retry_after_s=2.0).retry_after_s == 2.0


def test_the_code_of_the_answer_wins_over_that_of_the_body() -> None:
    assert from_response(503, body(code=200), what="x").status == 503


@pytest.mark.parametrize("data", [MARKER.encode(), body(message=MARKER), body(reason=MARKER)])
def test_no_message_holds_the_servers_free_text(data: bytes) -> None:
    error = from_response(500, data, what="GET x")
    assert MARKER not in f"{error!r} {error.reason}"
