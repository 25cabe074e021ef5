"""Makes what is beside this file importable: `proof`, `pair`, `bench`, `streams`, `deadline`. Lets a terminated run clean up.
Examples of property tests have no time limit each: how long one takes is the machine's affair. Coroutine tests run in an event
loop of their own."""

import asyncio
import inspect
import signal
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).resolve().parent))

settings.register_profile("remus", deadline=None)
settings.load_profile("remus")


def _terminated(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt("terminated")


def pytest_configure() -> None:
    """A terminated run ends like an interrupted one: fixtures are finished, nothing is left behind on the lab."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminated)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """One that has to end in time has a hook of its own, which comes before this one."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in wanted}))
    return True
