"""Composes a replica from its ports; the lab composes the same one from simulated ports."""

from functools import partial

from reconciler.clock import LONG_AGO, Clock, Instant
from reconciler.controller.controller import Controller
from reconciler.controller.decide.confirmation_mac import ConfirmationMac
from reconciler.controller.ports import Endpoints, Ports, Task
from reconciler.controller.runtime import ControllerConfig
from reconciler.controller.state.mac_key import MacKeyFile
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.platform.api import Bearer
from reconciler.tokens.source import OidcSource, TokenSource
from reconciler.tokens.static import StaticSource
from reconciler.tokens.token import Token

BEARER_REMAINING = 0.2
"""Least remaining life, as a fraction, of the token that we show the platform."""

FORCE_S = 10.0
"""Least time between two token requests that a refusal of the platform causes."""


def compose(ports: Ports, config: ControllerConfig) -> Controller:
    """Return a controller that is ready to run."""
    return Controller(ports, connect(ports), config)


def connect(ports: Ports) -> Endpoints:
    """Make the endpoints of a replica."""
    clock, random = ports.clock, ports.random
    kube_breaker, platform_breaker, issuer_breaker = (
        CircuitBreaker(name, clock, random) for name in ("kube", "platform", "issuer")
    )
    mac, mac_key = ConfirmationMac(ports.secret, clock.monotonic), None
    source: TokenSource
    background_tasks: tuple[Task, ...]
    if isinstance(ports.tokens, StaticSource):
        source = ports.tokens
        source.on_replaced(partial(_use_as_key, mac))
        background_tasks = (source.watch_file,)
    else:
        source = OidcSource(
            ports.tokens.request_token,
            clock=clock,
            issuer_time=ports.issuer_time,
            breaker=issuer_breaker,
            random=random,
            refresh_on_key_rotation=ports.tokens.refresh_on_key_rotation,
        )
        background_tasks = (source.keep_standby,)
    if ports.reread_secret is not None:
        mac_key = MacKeyFile(ports.reread_secret, ports.secret, mac)
        background_tasks += (mac_key.run,)
    return Endpoints(
        source=source,
        platform=ports.connect_platform(bearer=_bearer(source, clock), breaker=platform_breaker),
        kube_breaker=kube_breaker,
        platform_breaker=platform_breaker,
        issuer_breaker=issuer_breaker,
        confirmation_mac=mac,
        mac_key=mac_key,
        background_tasks=background_tasks,
    )


async def _use_as_key(mac: ConfirmationMac, token: Token) -> None:
    """Take in another static token: without an issuer it is also the key of the confirmations."""
    mac.set_key(token.reveal())


def _bearer(source: TokenSource, clock: Clock) -> Bearer:
    """Show the platform the token that the runners get; request another if that one is refused."""
    forced_at: Instant = LONG_AGO

    async def bearer(refused: bool) -> str:
        nonlocal forced_at
        if refused and clock.monotonic() - forced_at >= FORCE_S:
            forced_at = clock.monotonic()
            return (await source.refresh()).reveal()
        return (await source.get(min_remaining=BEARER_REMAINING)).reveal()

    return bearer
