"""One session asked of the platform, because a pod appeared that nobody has confirmed."""

from collections.abc import Callable, Iterable

import structlog

from reconciler.control.directory import Directory
from reconciler.control.plan import View, is_young
from reconciler.errors import PlatformUnavailable
from reconciler.names import SessionKey
from reconciler.observe.once import Once
from reconciler.platform.api import Platform

log = structlog.get_logger()


class Lookup:
    """Asks and tells the directory; callers read the answer there.

    A labelled pod alone proves nothing: the platform must name the session, with the pod's project
    and in the pod's namespace.

    Args:
        found: Told the namespace of each session that the platform knows.
        now_s: The issuer's time, epoch seconds.
    """

    def __init__(
        self,
        client: Platform,
        directory: Directory,
        once: Once,
        found: Callable[[Iterable[str]], None],
        now_s: Callable[[], float],
    ) -> None:
        self._client = client
        self._now_s = now_s
        self._found = found
        self._directory = directory
        self._once = once

    async def __call__(self, key: SessionKey, view: View) -> None:
        """Look one session up.

        Raises:
            PlatformError: No answer that says yes or no; what was known stays.
        """
        if self._client.breaker.is_down:
            raise PlatformUnavailable("the platform is away")
        labelled = view.pod or view.secret
        project = labelled.project_id if labelled is not None else ""
        session = await self._client.session(key.session_id, project)
        if session is not None:
            self._found([self._directory.key_of(session).namespace])
        if session is None:
            why = "the platform does not know this session"
        elif self._directory.key_of(session) != key:
            why = f"the platform has it in namespace {self._directory.key_of(session).namespace}"
        elif session.project_id != project:
            why = "the platform has it in another project"
        else:
            self._directory.confirm(session)
            return
        young = session is None and is_young(view, self._now_s())
        if self._directory.deny(key, young=young) and self._once.first("pod_not_confirmed", *key):
            log.warning(
                "pod_not_confirmed", namespace=key.namespace, session_id=key.session_id, why=why
            )
