# SPDX-License-Identifier: MIT
"""The servers of a test's lab, which answer while the test's own thread waits for programs."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from threading import Thread

from lab.fabric.lab import Lab
from lab.netns import bound
from lab.standing.servers import Servers


class Serving:
    """Servers at the endpoints of a lab, as `lab up` has them, in an event loop and a thread of their own.

    :raises OSError: EADDRINUSE: something else listens at an endpoint.
    """

    def __init__(self, lab: Lab) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="servers", daemon=True)
        self._thread.start()
        self._servers = Servers(lab)
        try:
            self._have(self._servers.__aenter__())
        except BaseException:
            self.close()
            raise

    def follow(self) -> None:
        """Have those answer as well that the Services of now have."""
        self._have(self._servers.follow())

    def close(self) -> None:
        """End them and all of their connections."""
        self._have(self._servers.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _have(self, done: Coroutine[object, object, object]) -> None:
        asyncio.run_coroutine_threadsafe(done, self._loop).result(bound.SECONDS)
