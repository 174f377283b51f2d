"""What a replica reaches the world through, and the endpoints that are made from it."""

from collections.abc import Awaitable, Callable, Coroutine
from random import Random
from typing import Any, Protocol

import msgspec

from reconciler.clock import Clock
from reconciler.controller.decide.confirmation_mac import ConfirmationMac
from reconciler.controller.reconcile.run import Observer
from reconciler.controller.state.mac_key import MacKeyFile
from reconciler.controller.status.replica_report import Reporter
from reconciler.kube.api import Kube
from reconciler.leadership.api import Leadership, WriteFence
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.platform.api import Bearer, Platform
from reconciler.telemetry.trace import Tracer
from reconciler.tokens.issuer_time import IssuerTime
from reconciler.tokens.source import TokenSource
from reconciler.tokens.static import StaticSource
from reconciler.tokens.token_response import TokenResponse

Task = Callable[[], Coroutine[Any, Any, None]]
"""What runs in the controller's TaskGroup."""


class IssuerPort(msgspec.Struct, frozen=True):
    """Tokens on request.

    Args:
        request_token: One request to the issuer; must end within a time limit.
        refresh_on_key_rotation: See `OidcSource`.
    """

    request_token: Callable[[], Awaitable[TokenResponse]]
    refresh_on_key_rotation: bool = True


class ConnectPlatform(Protocol):
    """Makes the client of the platform."""

    def __call__(self, *, bearer: Bearer, breaker: CircuitBreaker) -> Platform: ...


class Ports(msgspec.Struct, frozen=True):
    """What a replica reaches the world through; each port has a real and a simulated form.

    Args:
        tokens: Where tokens come from: an issuer, or the settings.
        secret: What the key of the confirmations is derived from: the client secret, or the static
            token.
        reread_secret: Reads the client secret again, since its file may change; raises
            `SettingsError` if there is none. None: it does not change.
        reporter: How this replica's problems are reported on the Lease; None: they are not.
        background_tasks: What must run with the controller.
        tracer: The tracer of the telemetry; without one, no trace is exported.
        observers: Called with every run, after the controller's own observers.
    """

    kube: Kube
    tokens: IssuerPort | StaticSource
    secret: str
    connect_platform: ConnectPlatform
    issuer_time: IssuerTime
    clock: Clock
    random: Random
    fence: WriteFence
    leadership: Leadership
    reread_secret: Callable[[], str] | None = None
    reporter: Reporter | None = None
    background_tasks: tuple[Task, ...] = ()
    tracer: Tracer | None = None
    observers: tuple[Observer, ...] = ()

    def __repr__(self) -> str:
        return "<Ports>"  # that of a struct would show the secret


class Endpoints(msgspec.Struct, frozen=True):
    """The token source, the platform, and a circuit breaker for each endpoint.

    Args:
        mac_key: The file of the key of the confirmations, if it is in one of its own.
        background_tasks: What the token source and the key need to have running.
    """

    source: TokenSource
    platform: Platform
    kube_breaker: CircuitBreaker
    platform_breaker: CircuitBreaker
    issuer_breaker: CircuitBreaker
    confirmation_mac: ConfirmationMac
    mac_key: MacKeyFile | None = None
    background_tasks: tuple[Task, ...] = ()

    @property
    def breakers(self) -> tuple[CircuitBreaker, ...]:
        return self.kube_breaker, self.platform_breaker, self.issuer_breaker
