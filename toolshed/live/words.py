"""A run in words."""

from __future__ import annotations

import math
from typing import Any

from toolshed.views.panels import short

NONE = "–"


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


def sentence(head: dict[str, Any]) -> str:
    """How a run fares, in one line: ``paused at step 900 of 2,000 · epoch 1.20 · 0:40``."""
    goal = "" if head["goal"] is None else f" of {head['goal']:,}"
    parts = [f"{head['status']} at step {head['step']:,}{goal}"]
    if head["epoch"] is not None:
        parts.append(f"epoch {float(head['epoch']):.2f}")
    parts.append(duration(float(head["elapsed"] or 0)))
    if head["steps_per_second"] is not None:
        speed = float(head["steps_per_second"])
        parts.append(f"{speed:,.0f} steps/s" if speed >= 100 else f"{short(speed, 3)} steps/s")
    return " · ".join([*parts, f"on {head['branch']}"])
