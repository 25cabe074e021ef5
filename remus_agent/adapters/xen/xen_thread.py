"""The thread in which one user of Xen's libraries makes its calls, and how long whoever asks waits for it.

libxenstore waits for xenstored for as long as that takes, and no call of it can be ended. So it is who asks that gives up: the
thread stays where it is, what has not begun by then is never begun, and when xenstored answers again the thread goes on. Time is
counted in looks that find the thread in the same request: while this host was frozen, so was xenstored; and what takes long by
itself, a guest's memory to be copied, is not counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import get_ident
from typing import Final, ParamSpec, TypeVar

from remus_agent.adapters.xen import xenstore
from remus_agent.errors import HypervisorError

PATIENCE: Final = 30.0
"""Seconds that xenstored may take for one request. It answers within a millisecond, and while a host starts many guests at once
within a second or two."""
_LOOK: Final = 0.5
"""Seconds between two looks at what the thread does."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class XenThread:
    """name: of the thread. domain: whose calls are made in it; None: of all guests. left: the state that is left when xenstored
    does not answer. initializer: called first of all in the thread."""

    def __init__(
        self,
        name: str,
        *,
        domain: str | None = None,
        left: str | None = None,
        initializer: Callable[[], None] | None = None,
    ) -> None:
        self._domain, self._left = domain, left
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=initializer or _nothing)
        self._ident: int | None = None

    async def run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """What the function returns. Whoever is cancelled leaves one that has begun to its end. Raises what it raises, and
        HypervisorError when xenstored does not answer."""

        def work() -> _T:
            self._ident = get_ident()
            return function(*args, **kwargs)

        future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        try:
            await self._ended(future)
            return future.result()
        finally:
            future.cancel()

    async def finish(self, function: Callable[[], None]) -> None:
        """The same for the last one, after which the thread ends. It is carried out in any case, also behind one that hangs, and
        whatever becomes of who waits for it."""
        future = asyncio.wrap_future(self._executor.submit(function))
        self.end()
        await self._ended(future)
        future.result()

    def end(self) -> None:
        """Nothing follows what was asked for. Safe to call twice."""
        self._executor.shutdown(wait=False)

    async def _ended(self, future: asyncio.Future[_T]) -> None:
        stuck, looks = None, 0
        while not (await asyncio.wait({future}, timeout=_LOOK))[0]:
            request = None if self._ident is None else xenstore.request_of(self._ident)
            looks = looks + 1 if request is not None and request is stuck else 0
            stuck = request
            if stuck is not None and looks * _LOOK >= PATIENCE:
                raise HypervisorError(
                    f"xenstored has not answered within {PATIENCE:g} s ({stuck.text})",
                    operation="ask xenstored",
                    domain=self._domain,
                    left=self._left,
                    hint="`timeout 5 xenstore-list /` shows whether it answers; if not, `ps axo stat,wchan:20,time,cmd | grep"
                    " xenstored` and dmesg what it waits for: no guest of this host can be started, moved or ended meanwhile",
                )


def _nothing() -> None:
    """Nothing is to be done first."""
