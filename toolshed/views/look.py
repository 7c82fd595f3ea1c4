"""Look: the colours of figures, and their panels before anything is drawn in them."""

from __future__ import annotations

import base64
import functools
import io
import math
import uuid
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from toolshed.views.panels import Panel, printable, short, unit_of


class Look(NamedTuple):
    """The colours of a figure. Those of lines are of the palette of Okabe and Ito."""

    ground: str
    ink: str
    faint: str
    grid: str
    alpha: float
    splits: Mapping[str | None, str]
    marks: Mapping[str, str]


_OKABE_ITO = {
    "orange": "#E69F00", "sky blue": "#56B4E9", "bluish green": "#009E73", "blue": "#0072B2",
    "vermillion": "#D55E00", "reddish purple": "#CC79A7",
}  # fmt: skip
LIGHT = Look(
    ground="#ffffff",
    ink="#333333",
    faint="#a6a6a6",
    grid="#ececec",
    alpha=0.3,
    splits={"train": _OKABE_ITO["blue"], "eval": _OKABE_ITO["vermillion"], None: "#404040"},
    marks={"change": _OKABE_ITO["reddish purple"], "keep": _OKABE_ITO["bluish green"]},
)
DARK = Look(
    ground="#111111",
    ink="#d6d6d6",
    faint="#6e6e6e",
    grid="#2b2b2b",
    alpha=0.4,
    splits={"train": _OKABE_ITO["sky blue"], "eval": _OKABE_ITO["orange"], None: "#d0d0d0"},
    marks={"change": _OKABE_ITO["reddish purple"], "keep": _OKABE_ITO["bluish green"]},
)
KINDS: dict[str, tuple[str, str, Any]] = {
    "edited": ("edit", "change", "-"),
    "model_edited": ("model edit", "change", (0, (6, 2))),
    "branched": ("branch", "ink", (0, (1, 2))),
    "saved": ("saved", "keep", "-"),
    "nonfinite": ("NaN or infinite", "ink", (0, (4, 2, 1, 2))),
    "interrupted": ("interrupted", "ink", (0, (4, 3))),
    "error": ("error", "ink", (0, (4, 3))),
}
"""Each kind of mark: its name in the legend, which colour of the `Look` it has, and its line style."""


_Draw = TypeVar("_Draw", bound=Callable[..., Any])
_FOLLOWS = (
    '<style>body[data-jp-theme-light="false"] .{place}{{content:url(data:image/png;base64,{dark})}}</style>'
    '<img class="{place}" width="{width}" height="{height}" alt="figure"'
    ' src="data:image/png;base64,{light}">'
)


@functools.cache
def _figure_class() -> Any:
    """A Figure that shows itself in a notebook, whether or not pyplot was ever imported."""
    from matplotlib.figure import Figure

    class CurvesFigure(Figure):
        """A matplotlib Figure. In a notebook with a dark theme its twin for dark ground is shown."""

        in_dark: Callable[[], Any] | None = None

        def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
            data = io.BytesIO()
            self.savefig(data, format="png", dpi=192)
            width, height = (round(96 * inches) for inches in self.get_size_inches())
            return data.getvalue(), {"width": width, "height": height}

        def _repr_html_(self) -> str | None:
            if self.in_dark is None:
                return None
            light, size = self._repr_png_()
            pictures = {"light": light, "dark": self.in_dark()._repr_png_()[0]}
            texts = {name: base64.b64encode(data).decode() for name, data in pictures.items()}
            return _FOLLOWS.format(place=f"toolshed-{uuid.uuid4().hex[:8]}", **size, **texts)

    return CurvesFigure


def themed(draw: _Draw) -> _Draw:
    """Lets a function that draws with ``dark=`` leave it to the notebook: ``dark=None`` follows its theme.

    What is saved then is for light ground.
    """

    @functools.wraps(draw)
    def either(*arguments: Any, dark: bool | None = None, **options: Any) -> Any:
        figure = draw(*arguments, dark=bool(dark), **options)
        if dark is None:
            figure.in_dark = lambda: draw(*arguments, dark=True, **options)
        return figure

    return cast(_Draw, either)


def sheet(width: float, height: float, look: Look) -> tuple[Any, Any]:
    """A figure of one drawing, in inches, with its axes: light rules, and no box."""
    figure = _figure_class()(figsize=(width, height), layout="constrained", facecolor=look.ground)
    axes = figure.add_subplot()
    axes.set_facecolor(look.ground)
    axes.grid(True, color=look.grid, lw=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set(color=look.faint, lw=0.8)
    axes.tick_params(which="both", labelsize=7.5, labelcolor=look.ink, color=look.faint, length=0)
    return figure, axes


def name_axes(axes: Any, look: Look, *, title: str = "", x: str = "", y: str = "") -> None:
    """Writes a title on the left, and what the axes are; text, never mathematics."""
    axes.set_title(printable(title, 90), loc="left", fontsize=9, color=look.ink, parse_math=False)
    axes.set_xlabel(printable(x, 90), fontsize=7.5, color=look.ink, parse_math=False)
    axes.set_ylabel(printable(y, 60), fontsize=7.5, color=look.ink, parse_math=False)


def canvas(count: int, notes: int, look: Look) -> tuple[Any, list[Any]]:
    """A figure with as many axes as panels, in rows; steps are written below the last of each column.

    Args:
      count: panels.
      notes: lines of text below them.
      look: the colours.
    """
    columns = {1: 1, 2: 2, 4: 2}.get(count, 3)
    rows = -(-count // columns)
    width, height = {1: (5.2, 3.1), 2: (3.7, 2.5)}.get(columns, (3.3, 2.1))
    size = (width * columns, height * rows + 0.4 + 0.13 * notes)
    figure = _figure_class()(figsize=size, layout="constrained", facecolor=look.ground)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.05, wspace=0.02, hspace=0.03)
    places, grid = figure.add_gridspec(rows, columns), []
    for index in range(count):
        axes = figure.add_subplot(places[index // columns, index % columns])
        grid.append(axes)
        lowest = index + columns >= count
        axes.tick_params(axis="x", labelbottom=lowest)
        if lowest:
            axes.set_xlabel("step", fontsize=7.5, color=look.ink, labelpad=1)
    return figure, grid


def dress(axes: Any, panel: Panel, unit: str, look: Look, pad: int) -> None:
    """Puts a title on the left and the unit on the right, light rules, and no box."""
    axes.set_facecolor(look.ground)
    room = int(10.5 * axes.figure.get_figwidth() / axes.get_gridspec().ncols) - len(unit)
    title = printable(panel.title, room)
    axes.set_title(title, loc="left", fontsize=9, color=look.ink, pad=pad, parse_math=False)
    axes.set_title(unit, loc="right", fontsize=7.5, color=look.ink, pad=pad, parse_math=False)
    axes.grid(True, color=look.grid, lw=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set(color=look.faint, lw=0.8)
    axes.tick_params(which="both", labelsize=7.5, labelcolor=look.ink, color=look.faint, length=0)
    axes.tick_params(axis="x", length=3, width=0.8)


def scale(axes: Any, panel: Panel, logarithmic: bool) -> str:
    """Says how the numbers along the axes are written, and gives their unit."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=_ROUND))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value, 6)))
    unit = unit_of(panel.names[0])
    shown = [line for line in axes.lines if line.get_transform() == axes.transData]
    if logarithmic and any((np.asarray(line.get_ydata()) > 0).any() for line in shown):
        axes.set_yscale("log", nonpositive="mask")
        axes.yaxis.set_minor_locator(NullLocator())
        low, high = axes.get_ylim()
        if high / low > 10:
            parts = (1.0, 2.0, 5.0) if high / low < 100 else (1.0,)
            axes.yaxis.set_major_locator(LogLocator(subs=parts, numticks=7))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value).replace("-", "−")))
            return unit
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=_ROUND))
    factor, letter = _factor(max(map(abs, axes.get_ylim())))
    if unit == "bytes":
        unit, letter = f"{letter}B", ""
    axes.yaxis.set_major_formatter(FuncFormatter(functools.partial(_tick, axes.yaxis, factor, letter)))
    return unit


_ROUND = [1, 2, 2.5, 5, 10]


def _factor(largest: float) -> tuple[float, str]:
    """The unit of thousands in which numbers up to a largest one are short."""
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if largest >= factor * (1 if factor > 1e3 else 10):
            return factor, letter
    return 1.0, ""


def _tick(axis: Any, factor: float, letter: str, value: float, position: int | None = None) -> str:
    """A number on an axis, with as many decimals as tell it from its neighbours."""
    del position
    ticks = axis.get_majorticklocs()
    gap = (ticks[1] - ticks[0]) / factor if len(ticks) > 1 else 1.0
    if value and max(abs(ticks)) < 1e-3:
        return short(value / factor).replace("-", "−") + letter
    decimals = next((d for d in range(9) if math.isclose(gap * 10**d, round(gap * 10**d), rel_tol=1e-6)), 8)
    number = f"{value / factor:.{decimals}f}"
    return "0" if float(number) == 0 else number.replace("-", "−") + letter


def explain(figure: Any, legend: dict[str, Any], notes: list[str], look: Look) -> None:
    """Puts the legend above all panels, unless there is but one kind of line, and the notes below."""
    if notes:
        text = "\n".join(notes)
        figure.supxlabel(text, x=0.01, ha="left", fontsize=7, color=look.ink, parse_math=False)
    order = ["train", "eval", "as logged", "other branches"]
    labels = sorted(legend, key=lambda label: order.index(label) if label in order else len(order))
    if not labels or labels == ["train"]:
        return
    figure.legend(
        [legend[label] for label in labels],
        labels,
        loc="outside upper left",
        ncols=min(len(labels), 6),
        frameon=False,
        fontsize=7.5,
        labelcolor=look.ink,
        handlelength=1.8,
        columnspacing=1.4,
        borderaxespad=0.2,
    )
