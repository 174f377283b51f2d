"""What an issuer's OAuth error code says of the cause, in words for people (pure)."""

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

_OF_THE_REQUEST = {
    "access_denied": _POLICY,
    "invalid_request": _REQUEST,
    "invalid_resource": _RESOURCE,
    "invalid_scope": _SCOPE,
    "invalid_target": _TARGET,
    "unsupported_grant_type": _GRANT,
}
"""Codes that do not say that the client's ID or secret is wrong, and what to look at."""


def hint_of_refusal(code: str, status: int) -> str:
    """Return what to look at after a refusal, by its OAuth error code ("" = none was given).

    Source: RFC 6749 5.2 and 4.1.2.1, RFC 8707 2. Keycloak says `unauthorized_client` with 401 of a
    wrong secret, and with 400 of a client that may not use the grant. Ory Hydra says
    `invalid_request` of an audience that the client does not have, Auth0 `access_denied`,
    Microsoft Entra ID `invalid_resource`.
    """
    if code == "unauthorized_client":
        return _CLIENT if status == 401 else _GRANT
    if not code and status != 401:
        return _UNNAMED
    return _OF_THE_REQUEST.get(code, _CLIENT)


def what_is_refused(code: str, status: int) -> str:
    """Return "our credentials", or "our request" where the code does not blame the credentials.

    Args:
        code: OAuth error code, "" where none was given.
        status: HTTP status, 0 where no request was sent.
    """
    is_request = code in _OF_THE_REQUEST or (code == "unauthorized_client" and status != 401)
    return "our request" if is_request else "our credentials"
