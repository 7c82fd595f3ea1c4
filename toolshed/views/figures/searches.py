"""Searches: a sweep over learning rates, and a fan of futures."""

from __future__ import annotations

from typing import Any

import numpy as np

from toolshed.views.lines import outline
from toolshed.views.look import DARK, LIGHT, name_axes, sheet, themed
from toolshed.views.panels import printable, short

HEADROOM = 4.0
"""How far above the first loss the picture of a sweep goes, in units of the way down from it."""
PAST = 3
"""How much of the past is drawn in front of a fan, in lengths of the fan."""


@themed
def learning_rates(found: Any, *, title: str = "learning rate", dark: bool | None = None) -> Any:
    """The loss over the learning rate that made it, with the one that is suggested.

    Args:
      found: what `toolshed.lr_find` gives.
      title: above the figure.
      dark: for a dark ground.
    """
    look = DARK if dark else LIGHT
    figure, axes = sheet(6.0, 3.2, look)
    rates, losses = np.asarray(found.rates), np.asarray(found.losses, np.float64)
    smoothed = np.asarray(found.smoothed, np.float64)
    axes.set_xscale("log")
    axes.plot(rates, losses, color=look.splits["train"], lw=0.9, alpha=look.alpha + 0.1, label="loss")
    axes.plot(rates, smoothed, color=look.splits["train"], lw=1.8, label="smoothed")
    for rate, word, style in ((found.suggested, "suggested", "-"), (found.lowest, "lowest", (0, (2, 2)))):
        if rate is not None:
            color = look.marks["change"] if word == "suggested" else look.faint
            axes.axvline(rate, color=color, lw=1.3, ls=style, label=f"{word}: {short(rate, 3)}")
    _limit(axes, smoothed)
    end = " · ended early, the loss grew" if found.diverged else ""
    name_axes(axes, look, title=f"{title}{end}", x="learning rate", y="loss")
    axes.legend(frameon=False, fontsize=7, labelcolor=look.ink)
    return figure


def _limit(axes: Any, smoothed: np.ndarray) -> None:
    """Keeps the end, where the loss explodes, from flattening all before it."""
    finite = smoothed[np.isfinite(smoothed)]
    if not len(finite):
        return
    low, first = float(finite.min()), float(finite[0])
    fall = max(first - low, 0.1 * abs(first), 1e-12)
    axes.set_ylim(low - 0.2 * fall, min(float(finite.max()) + 0.1 * fall, first + HEADROOM * fall))


@themed
def futures(found: Any, *, log: bool = False, title: str = "what if", dark: bool | None = None) -> Any:
    """The run's own loss so far, and a fan of what it would become; the best future stands out.

    Args:
      found: what `toolshed.what_if` gives.
      log: log scale.
      title: above the figure.
      dark: for a dark ground.
    """
    import matplotlib

    look = DARK if dark else LIGHT
    figure, axes = sheet(6.4, 3.2, look)
    steps, losses = found.past
    past, past_losses = outline(np.asarray(steps), np.asarray(losses, np.float64))
    axes.plot(past, past_losses, color=look.faint, lw=1.1, label="so far")
    axes.axvline(found.step, color=look.faint, lw=0.8, ls=(0, (4, 3)))
    count = len(found.values)
    shades = matplotlib.colormaps["viridis"](np.linspace(0.25 if dark else 0.0, 1.0 if dark else 0.85, count))
    for place in range(count):
        losses = np.asarray(found.losses[place], np.float64)
        is_best = place == found.best
        label = printable(found.label(place), 40) + (" · best" if is_best else "")
        ended = not np.isfinite(losses[-1])
        axes.plot(
            *outline(np.asarray(found.steps), losses),
            color=shades[place],
            lw=2.0 if is_best else 1.0,
            zorder=4 if is_best else 3,
            label=label + (" · not finite" if ended else ""),
        )
    axes.set_xlim(max(0, found.step - PAST * len(found.steps)), found.step + len(found.steps) * 1.02)
    if log:
        axes.set_yscale("log", nonpositive="mask")
    else:
        _limit_fan(axes, past_losses[-PAST * len(found.steps) :], np.asarray(found.losses, np.float64))
    name_axes(axes, look, title=f"{title} · from step {found.step:,}", x="step", y="loss")
    legend = axes.legend(
        frameon=False, fontsize=7, labelcolor=look.ink, loc="center left", bbox_to_anchor=(1, 0.5)
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _limit_fan(axes: Any, past: np.ndarray, losses: np.ndarray) -> None:
    """Keeps a future that explodes from flattening the others."""
    finite = losses[np.isfinite(losses)]
    past = past[np.isfinite(past)]
    if not len(finite):
        return
    low = float(min(finite.min(), past.min(initial=np.inf)))
    begun = max(float(past.max(initial=-np.inf)), float(np.median(finite)))
    high = min(float(finite.max()), begun + (begun - low)) if len(past) else float(finite.max())
    high = max(high, float(past.max(initial=-np.inf)))
    room = 0.06 * (high - low) or 0.5
    axes.set_ylim(low - room, high + room)
