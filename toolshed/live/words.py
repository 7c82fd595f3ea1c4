"""Numbers and states of a run in words."""

from __future__ import annotations

import math
from typing import Any

NONE = "–"


def count(number: float) -> str:
    """A whole number in groups of three: ``12,345``."""
    return f"{number:,.0f}"


def duration(seconds: float | None) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``, from two days on as days and hours.

    Example:
      >>> duration(75.2), duration(3725), duration(200_000)
      ('1:15', '1:02:05', '2 d 7 h')
    """
    if seconds is None or not math.isfinite(seconds):
        return NONE
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def value(number: float | None, digits: int = 4) -> str:
    """A number with so many significant digits.

    Example:
      >>> value(0.25), value(1.5e-7), value(float("nan")), value(-float("inf"))
      ('0.2500', '1.5e-7', 'NaN', '-∞')
    """
    if number is None:
        return NONE
    if not math.isfinite(number):
        return "NaN" if math.isnan(number) else ("∞" if number > 0 else "-∞")
    if number == 0:
        return "0"
    if 1e-4 <= abs(number) < 10**digits:
        whole = math.floor(math.log10(abs(number))) + 1
        return f"{number:.{max(digits - whole, 0)}f}"
    if 1 <= abs(number) < 1e6:
        return count(number)
    mantissa, exponent = f"{number:.{digits - 1}e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def sentence(head: dict[str, Any]) -> str:
    """How a run fares, in one line: ``paused at step 900 of 2,000 · epoch 1.20 · 0:40``."""
    goal = "" if head["goal"] is None else f" of {count(head['goal'])}"
    parts = [f"{head['status']} at step {count(head['step'])}{goal}"]
    if head["epoch"] is not None:
        parts.append(f"epoch {float(head['epoch']):.2f}")
    parts.append(duration(float(head["elapsed"] or 0)))
    if head["steps_per_second"] is not None:
        parts.append(f"{value(float(head['steps_per_second']), 3)} steps/s")
    return " · ".join([*parts, f"on {head['branch']}"])
