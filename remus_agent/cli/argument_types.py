"""What arguments of `remusctl` may be."""

from __future__ import annotations

import argparse
import re
from typing import Final
from uuid import UUID

from remus_agent.protocol.limits import MAX_INTERVAL_MS


def guest_uuid(value: str) -> str:
    """A UUID as Xen writes it."""
    try:
        usual = str(UUID(value))
    except ValueError:
        usual = None
    if value != usual:
        raise argparse.ArgumentTypeError(
            f"{value!r} is not a UUID in its usual form"
            + (f", which would be {usual}" if usual else "")
            + "; find it with `xl list -v` or `xl vm-list`, or as `uuid` in the guest's configuration"
        )
    return value


def count(value: str) -> int:
    """A number from 0 on."""
    number = int(value)
    if number < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number


def interval(value: str) -> int:
    """Milliseconds between two checkpoints."""
    number = count(value)
    if number > MAX_INTERVAL_MS:
        raise argparse.ArgumentTypeError(f"must be at most {MAX_INTERVAL_MS}")
    return number


def seconds(value: str) -> float:
    """A time that somebody may wait."""
    number = float(value)
    if not 0 < number <= 86400:
        raise argparse.ArgumentTypeError("must be above 0 and at most 86400")
    return number


_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST_PAUSE: Final = 7 * 86400


def period(value: str) -> float:
    """A time with its unit: `90s`, `30m`, `2h`, `1d`, or several: `1h30m`. In seconds."""
    parts = re.findall(r"(\d+)([smhd])", value)
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise argparse.ArgumentTypeError(f"{value!r} is no time with its unit: 90s, 30m, 2h, 1d, 1h30m")
    seconds = sum(int(number) * _UNITS[unit] for number, unit in parts)
    if not 1 <= seconds <= LONGEST_PAUSE:
        raise argparse.ArgumentTypeError("must be at least 1s and at most 7d")
    return float(seconds)


def pause(value: str) -> float:
    """A time between two looks."""
    number = float(value)
    if not 0.2 <= number <= 3600:
        raise argparse.ArgumentTypeError("must be at least 0.2 and at most 3600")
    return number
