"""A thread and an event loop for an elector, so that a stall of the main loop does not stop it."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import Self

from reconciler.leadership.elector import LeaderElector

ElectorFactory = Callable[[], AbstractAsyncContextManager[LeaderElector]]


class ElectorThread:
    """Runs one elector while entered; enter it once, from the main loop.

    Args:
        elector_factory: Makes the elector and its connection; called in the thread, on its loop.
        loop_factory: Of the thread's event loop.
    """

    def __init__(
        self, elector_factory: ElectorFactory, loop_factory: Callable[[], asyncio.AbstractEventLoop]
    ) -> None:
        self._elector_factory = elector_factory
        self._loop_factory = loop_factory
        self._opened: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[None], LeaderElector]]
        self._opened = Future()
        self._finished: Future[None] = Future()
        # A daemon: the second SIGTERM ends the process even if this thread waits for something.
        self._thread = threading.Thread(target=self._main, name="elector", daemon=True)

    async def __aenter__(self) -> Self:
        """Return once the elector exists; raises what its factory raised."""
        self._thread.start()
        await asyncio.wrap_future(self._opened)
        return self

    async def __aexit__(self, *_: object) -> None:
        loop, task, _elector = self._opened.result()
        if not self._finished.done():
            _call_soon(loop, task.cancel)
        await asyncio.wait([asyncio.wrap_future(self._finished)])
        self._thread.join()

    async def run(self) -> None:
        """Return when the elector has released the Lease; raises what it raised."""
        await asyncio.shield(asyncio.wrap_future(self._finished))

    async def release(self) -> None:
        """Release the Lease; return when that is done."""
        loop, _, elector = self._opened.result()
        _call_soon(loop, elector.release)
        await self.run()

    def _main(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._loop_factory) as runner:
                runner.run(self._elect())
        except asyncio.CancelledError:
            self._finished.set_result(None)
        except BaseException as error:  # otherwise the thread would end silently
            if self._opened.done():
                self._finished.set_exception(error)
            else:
                self._opened.set_exception(error)
        else:
            self._finished.set_result(None)

    async def _elect(self) -> None:
        async with self._elector_factory() as elector:
            task = asyncio.create_task(elector.run())
            self._opened.set_result((asyncio.get_running_loop(), task, elector))
            await task


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        return  # its loop has just ended, so that there is nothing left to call
