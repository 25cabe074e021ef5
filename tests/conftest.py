"""Makes the packages beside this file importable: `proof`, `pair`, `bench`, `streams`. Lets a terminated run clean up."""

import signal
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))


def _terminated(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt("terminated")


def pytest_configure() -> None:
    """A terminated run ends like an interrupted one: fixtures are finished, nothing is left behind on the lab."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminated)
