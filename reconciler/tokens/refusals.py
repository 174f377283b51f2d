"""Hints for people from an issuer's OAuth error code (pure)."""

_CLIENT = "look at OIDC_CLIENT_ID and OIDC_CLIENT_SECRET, and the Secret they come from"
_SCOPE = "the issuer wants another scope: set RECONCILER_OIDC_SCOPE to one that this client has"
_TARGET = (
    "the issuer wants another audience: set RECONCILER_OIDC_AUDIENCE or RECONCILER_OIDC_RESOURCE"
    " to the platform's API as the issuer knows it"
)
_RESOURCE = (
    "the issuer does not know the API that is asked for: look at RECONCILER_OIDC_SCOPE,"
    " RECONCILER_OIDC_AUDIENCE and RECONCILER_OIDC_RESOURCE"
)
_GRANT = "allow this client the grant client_credentials at the issuer"
_POLICY = (
    "the issuer knows this client and does not let it have this token: allow it at the issuer, or"
    " look at RECONCILER_OIDC_SCOPE and RECONCILER_OIDC_AUDIENCE"
)
_REQUEST = (
    "the issuer misses a field of the request, or does not allow the value of one: look at its"
    " log, then at RECONCILER_OIDC_SCOPE, RECONCILER_OIDC_AUDIENCE, RECONCILER_OIDC_RESOURCE and"
    " RECONCILER_OIDC_FORM"
)
_UNNAMED = (
    "the issuer gives no error code that is known: look at its log, then at OIDC_CLIENT_ID and"
    " OIDC_CLIENT_SECRET, and at RECONCILER_OIDC_SCOPE and RECONCILER_OIDC_AUDIENCE"
)

_REQUEST_CODES = {
    "access_denied": _POLICY,
    "invalid_request": _REQUEST,
    "invalid_resource": _RESOURCE,
    "invalid_scope": _SCOPE,
    "invalid_target": _TARGET,
    "unsupported_grant_type": _GRANT,
}
"""Codes that are not about the client's ID or secret, each with what to check."""


def refusal_hint(code: str, status: int) -> str:
    """Return what to check after a refusal, from its OAuth error code ("" = none was given).

    Source: RFC 6749 5.2 and 4.1.2.1, RFC 8707 2. Keycloak returns `unauthorized_client` with 401
    for a wrong secret, and with 400 for a client that may not use the grant. For an audience that
    the client does not have Ory Hydra returns `invalid_request`, Auth0 `access_denied`, and
    Microsoft Entra ID `invalid_resource`.
    """
    if code == "unauthorized_client":
        return _CLIENT if status == 401 else _GRANT
    if not code and status != 401:
        return _UNNAMED
    return _REQUEST_CODES.get(code, _CLIENT)


def refused_part(code: str, status: int) -> str:
    """Return "our credentials", or "our request" if the code is not about the credentials.

    Args:
        code: OAuth error code, "" if none was given.
        status: HTTP status, 0 if no request was sent.
    """
    is_request = code in _REQUEST_CODES or (code == "unauthorized_client" and status != 401)
    return "our request" if is_request else "our credentials"
