"""What failed an attempt, in words (pure)."""

from reconciler import errors

_WORDS: dict[type[Exception], str] = {
    errors.IssuerUnavailable: "the issuer is away",
    errors.IssuerRefused: "the issuer refuses our credentials or our request",
    errors.TokenUnusable: "the issuer's token cannot be used",
    errors.Conflict: "somebody else wrote in between",
    errors.AlreadyExists: "its name is taken",
    errors.Forbidden: "a right is missing in its namespace",
    errors.AuthorizerNotReady: "the API server has just started and refuses everybody",
    errors.QuotaExceeded: "its namespace's quota is full",
    errors.Denied: "an admission policy refuses it",
    errors.Unauthorized: "the API server refuses our credentials",
    errors.NotFound: "it was gone",
    errors.Invalid: "the API server will not take it",
    errors.TooManyRequests: "the API server asked for patience",
    errors.ServerError: "the API server failed",
    errors.TransportError: "the API server did not answer",
    errors.PlatformUnavailable: "the platform is away",
    errors.PlatformAnswerTooLarge: "the platform's answer is larger than is held",
    errors.PlatformRefused: "the platform refuses our credentials",
    errors.PlatformError: "the platform refuses us",
    errors.DeposedError: "this replica no longer leads",
}

_BY_NAME = {kind.__name__: words for kind, words in _WORDS.items()}


def in_words(name: str) -> str:
    """Return an error's class in words; one without words is shown as it is."""
    return _BY_NAME.get(name, name)
