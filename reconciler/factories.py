"""Makes parts from the settings for `run` and `check`: secrets, the token endpoint, the source."""

from collections.abc import Callable
from pathlib import Path

from pydantic import SecretStr

from reconciler.clock import NEVER, Clock, EpochTime
from reconciler.errors import IssuerError, SettingsError
from reconciler.net.client_pool import Requests
from reconciler.settings import Settings
from reconciler.tokens.oidc import ClientCredentials, TokenEndpoint
from reconciler.tokens.static import StaticSource


class SecretSetting:
    """A value from the environment, or from a file that is read for every use."""

    def __init__(self, value: SecretStr | None, file: Path | None) -> None:
        self._value = value
        self._file = file

    def read(self) -> str:
        """Return the value; raises `SettingsError` if its file cannot be read or is empty."""
        if self._file is None:
            return _trimmed(self._value.get_secret_value()) if self._value else ""
        try:
            value = _trimmed(_read_mounted(self._file))
        except OSError as error:
            raise SettingsError(f"{self._file}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SettingsError(f"{self._file} holds no text") from None
        if not value:
            raise SettingsError(f"{self._file} is empty")
        return value

    def written_s(self) -> EpochTime:
        """Return when its file was written, epoch seconds; inf if unknown.

        It is unknown for a variable: the process before may have had another value.
        """
        if self._file is None:
            return NEVER
        try:
            return EpochTime(self._file.stat().st_mtime)
        except OSError:
            return NEVER


def _read_mounted(file: Path) -> str:
    """Return a file's text; a missing file is opened again at once.

    A kubelet replaces a mounted directory by the rename of a link, and then removes the former one.
    An open between the two fails (kubernetes#92851). It is no missing credential.
    """
    try:
        return file.read_text()
    except FileNotFoundError:
        return file.read_text()


def _trimmed(value: str) -> str:
    """Return a value without a byte order mark and white space, which editors and shells add."""
    return value.strip().removeprefix("\ufeff").strip()


def client_secret(settings: Settings) -> SecretSetting:
    return SecretSetting(settings.oidc_client_secret, settings.oidc_client_secret_file)


def static_token(settings: Settings) -> SecretSetting:
    return SecretSetting(settings.api_token, settings.api_token_file)


def token_endpoint(settings: Settings, session: Requests, clock: Clock) -> TokenEndpoint:
    """Return the token endpoint; it reads the credentials for each request."""
    return TokenEndpoint(
        settings.token_url(),
        session=session,
        credentials=_credentials(settings),
        clock=clock,
        limit_s=settings.issuer_limit_s,
        fields=settings.token_request_fields(),
    )


def static_source(settings: Settings, clock: Clock) -> StaticSource:
    """Return the source of the static token; raises `SettingsError` if the token is unusable."""
    secret = static_token(settings)
    try:
        return StaticSource(secret.read, clock, since_s=secret.written_s())
    except IssuerError as error:
        raise SettingsError(f"AMBIENT_API_TOKEN: {error}") from None


def _credentials(settings: Settings) -> Callable[[], ClientCredentials]:
    client_id = SecretSetting(SecretStr(settings.oidc_client_id), settings.oidc_client_id_file)
    secret = client_secret(settings)
    return lambda: ClientCredentials(client_id.read(), secret.read())
