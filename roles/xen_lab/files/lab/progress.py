"""Progress lines with the time since the command began."""

import sys
import threading
import time


class Progress:
    """Prints one line for each thing that begins or ends; safe to use from several threads."""

    def __init__(self, quiet: bool = False) -> None:
        self._start = time.monotonic()
        self._quiet = quiet
        self._lock = threading.Lock()

    def __call__(self, text: str) -> None:
        """Print TEXT behind the elapsed seconds."""
        if self._quiet:
            return
        elapsed = time.monotonic() - self._start
        with self._lock:
            sys.stdout.write(f"[{elapsed:6.1f} s] {text}\n")
            sys.stdout.flush()
