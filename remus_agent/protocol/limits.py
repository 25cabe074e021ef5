"""What a protection's own numbers may be, wherever they come from: configuration, command line or a HELLO."""

from __future__ import annotations

from typing import Final

MAX_INTERVAL_MS: Final = 60_000
"""Of the pause between two checkpoints."""
MIN_OUTPUT_BYTES: Final = 65536
MAX_OUTPUT_BYTES: Final = 2**31 - 1
"""Of a guest's output that is held."""
