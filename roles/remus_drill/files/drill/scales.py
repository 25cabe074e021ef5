"""From values to places on a plot, and which values to write beside its axes."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """low..high of values to begin..end of a plot's units; logarithmic where so asked, for values above 0."""

    low: float
    high: float
    begin: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Where a value lies; values beyond the ends lie at them."""
        value = min(max(value, self.low), self.high)
        if self.logarithmic:
            part = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        else:
            part = (value - self.low) / (self.high - self.low)
        return round(self.begin + part * (self.end - self.begin), 1)


def nice(low: float, high: float, most: int) -> list[float]:
    """Round values between two, at most so many of them."""
    if high <= low:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    while (high - low) / step > most:
        step *= next(factor for factor in (2, 2.5, 5, 10) if (high - low) / (step * factor) <= most or factor == 10)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def decades(low: float, high: float, most: int) -> list[float]:
    """Powers of ten between two."""
    found = [10.0**power for power in range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)]
    return found[:: max(1, math.ceil(len(found) / most))]
