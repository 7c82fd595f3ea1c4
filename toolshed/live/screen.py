"""Screen: a run as lines of text, to be drawn over and over, or one line to be printed."""

from __future__ import annotations

from typing import Any

from toolshed.live import autopsies
from toolshed.live.sparklines import Curve, Row, Signs, extent, sparkline
from toolshed.run import History
from toolshed.views import format_bytes
from toolshed.views.panels import Panel, arrange, in_order, printable, short, split_of, unit_of

MARKS = ("edited", "model_edited", "branched", "interrupted", "error")
"""Events that are drawn into the curves."""
NEWS = (*MARKS, "moved", "saved", "nonfinite", "autopsy", "note")
"""Events that are told in words."""
LABEL = 8
"""Characters to the left of a curve, where its lowest and highest value stand."""
PANEL = 44
"""The smallest width of a panel beside others."""

AUTOPSY = 4
"""Lines of an autopsy below its first."""

_PLAIN = {"→": "->", "·": "|", "×": "x", "…": "...", "−": "-", "–": "-", "’": "'", "‘": "'"}


def frame(run: Any, width: int, height: int, signs: Signs) -> list[Row]:
    """A run on a screen: its state in words, and the curves that there is room for.

    Args:
      run: read through its members that cost nothing.
      width, height: of the screen, in characters. The frame is one line less high.
      signs: what the screen can show.
    """
    rows = _header(run, width, signs)
    names = in_order(run.history.names)
    news = [*_autopsy(run), *_news(run, 2)]
    room = height - 1 - len(rows) - len(news)
    rows += _panels(run, arrange(names), width, room, signs)
    return [_cut(row, width) for row in [*rows, *news][: max(1, height - 1)]]


def line(run: Any) -> str:
    """A run in one line of text: step, values, speed."""
    progress, history = run.progress, run.history
    parts = [f"{printable(run.name, 40)}: {_steps(progress)}"]
    for name in in_order(history.names):
        last = history.last(name) if split_of(name) else None
        if last is not None:
            parts.append(f"{printable(name, 40)} {short(last[1])}")
    if progress.steps_per_second is not None:
        parts.append(f"{short(progress.steps_per_second, 3)} steps/s")
    if progress.remaining is not None:
        parts.append(f"{duration(progress.remaining)} left")
    if progress.status != "training":
        parts.append(printable(progress.status))
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Seconds as a clock shows them.

    >>> [duration(seconds) for seconds in (7.9, 754, 3725, 200_000)]
    ['0:07', '12:34', '1:02:05', '2 d 7:33:20']
    """
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if not hours:
        return f"{minute}:{second:02}"
    return f"{f'{days} d ' if days else ''}{hour}:{minute:02}:{second:02}"


def encodable(text: str, encoding: str) -> str:
    """A text with what an encoding lacks replaced: arrows by ``->``, other signs by question marks."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = "".join(_PLAIN.get(letter, letter) for letter in text)
        return text.encode(encoding, "replace").decode(encoding)
    return text


# --- the state in words -----------------------------------------------------------------------------


def _steps(progress: Any) -> str:
    goal = "" if progress.goal is None else f" of {progress.goal:,}"
    return f"step {progress.step:,}{goal}"


def _header(run: Any, width: int, signs: Signs) -> list[Row]:
    progress = run.progress
    steps = _steps(progress)
    name = printable(run.name, max(8, width - len(steps) - 16))
    status = printable(progress.status, 20)
    gap = max(2, width - _cells(name) - len(status) - len(steps) - 2)
    rows: list[Row] = [[(name, "title"), ("  ", ""), (status, "status"), (" " * gap, ""), (steps, "title")]]
    if progress.goal:
        rows.append(_bar(progress.step / progress.goal, width, signs))
    rows.append([(_as_many(_facts(progress), width, signs), "faint")])
    if progress.message:
        rows.append([(printable(progress.message, width), "message")])
    return [*rows, []]


def _bar(share: float, width: int, signs: Signs) -> Row:
    share = min(max(share, 0.0), 1.0)
    number = f" {int(100 * share)} %"
    done = int(share * (width - len(number)))
    return [
        (signs.bar * done, "bar"),
        (signs.rest * (width - len(number) - done), "rest"),
        (number, "faint"),
    ]


def _facts(progress: Any) -> list[str]:
    """What is known of a run's progress, a few words each."""
    facts = [] if progress.epoch is None else [f"epoch {progress.epoch:.2f}"]
    facts.append(f"{duration(progress.elapsed)} elapsed")
    if progress.remaining is not None:
        facts.append(f"{duration(progress.remaining)} left")
    for rate, unit in ((progress.steps_per_second, "steps/s"), (progress.examples_per_second, "examples/s")):
        if rate is not None:
            facts.append(f"{short(rate, 3)} {unit}")
    if progress.device_bytes is not None:
        limit = "" if progress.device_limit is None else f" of {format_bytes(progress.device_limit)}"
        facts.append(f"{format_bytes(progress.device_bytes)}{limit}")
    if progress.branch != "main":
        facts.append(f"branch {printable(progress.branch, 24)}")
    return facts


def _as_many(facts: list[str], width: int, signs: Signs) -> str:
    """As many facts as fit into a line, the first ones first."""
    while len(facts) > 1 and _cells(signs.dot.join(facts)) > width:
        facts = facts[:-1]
    return signs.dot.join(facts)


def _autopsy(run: Any) -> list[Row]:
    """What is known of the value that stopped the run, while it rests there."""
    found = autopsies.newest(run.events) if run.progress.status == "failed" else {}
    if not found:
        return []
    lines = [f"  {label:8} {printable(text, 200)}" for label, text in found["lines"][:AUTOPSY]]
    title = f"autopsy of step {found['step']:,}: {found['headline']}"
    return [[(printable(title, 200), "odd")], *([(line, "")] for line in lines)]


def _news(run: Any, most: int) -> list[Row]:
    told = [event for event in run.events if event.kind in NEWS][-most:]
    return [[(f"step {event.step:,}: {printable(event.text, 200)}", "faint")] for event in told]


# --- curves -----------------------------------------------------------------------------------------


def _panels(run: Any, panels: list[Panel], width: int, room: int, signs: Signs) -> list[Row]:
    """Panels side by side and below each other, as high as there is room; what is left over in words."""
    if not panels:
        return [[("no values yet", "faint")], []]
    columns = max(1, min(len(panels), (width + 2) // (PANEL + 2)))
    lines = -(-len(panels) // columns)
    height = next((high for high in (5, 4, 3, 2) if lines * (high + 2) <= room), 2)
    lines = max(1, min(lines, (room - 1) // (height + 2) if lines * (height + 2) > room else lines))
    wide = (width - 2 * (columns - 1)) // columns
    first, last = run.history.bounds()
    marks = _marks(run)
    rows: list[Row] = []
    for start in range(0, lines * columns, columns):
        blocks = [
            _panel(run.history, panel, first, last, wide, height, marks, signs)
            for panel in panels[start : start + columns]
        ]
        rows += [_beside(parts, wide) for parts in zip(*blocks, strict=True)]
        rows.append([])
    left = [name for panel in panels[lines * columns :] for name in panel.names]
    if left:
        known = [f"{printable(name, 30)} {_written(run.history, name)}" for name in left]
        rows.append([(_as_many(known, width, signs), "faint")])
    return rows


def _marks(run: Any) -> list[int]:
    """The steps of events on the current line."""
    known = {branch.name: branch for branch in run.history.branches}
    here, until, reach = known[run.history.branch], float("inf"), {}
    while True:
        reach[here.name] = until
        if here.parent is None:
            break
        until, here = min(until, here.start), known[here.parent]
    return [
        event.step
        for event in run.events
        if event.kind in MARKS and event.step <= reach.get(event.branch, -1)
    ]


def _panel(
    history: History, panel: Panel, first: int, last: int, width: int, height: int, marks: Any, signs: Signs
) -> list[Row]:
    """A panel: its title and newest values, and below them the curves with their range on the left."""
    inner = max(4, width - LABEL - 1)
    curves = [
        Curve(history.window(name, first, last, max(2, inner * signs.columns)), split_of(name) or "other")
        for name in panel.names
    ]
    values = []
    for name in panel.names:
        split = split_of(name)
        label = f"{split} " if split and len(panel.names) > 1 else ""
        values.append((f"{label}{_written(history, name)}", split or "other"))
    taken = sum(len(text) for text, _ in values) + 2 * len(values)
    title = printable(panel.title, max(8, width - taken))
    head: Row = [(title, "title"), (" " * max(0, width - taken - _cells(title)), "")]
    for text, style in values:
        head += [("  ", ""), (text, style)]
    graph = sparkline(curves, first, last, inner, height, marks=marks, signs=signs)
    ends, labels = extent(curves), [""] * height
    if ends is not None:
        labels[-1], labels[0] = _labels(*ends)
    body = zip(labels, graph, strict=True)
    return [head, *([(f"{label:>{LABEL}} ", "faint"), *row] for label, row in body)]


def _labels(low: float, high: float) -> tuple[str, str]:
    """Two numbers in at most `LABEL` characters, with as many digits as tell them apart."""
    pairs = [(short(low, digits), short(high, digits)) for digits in (3, 4, 5, 6, 2, 1)]
    fitting = [pair for pair in pairs if max(map(len, pair)) <= LABEL]
    return next((pair for pair in fitting if pair[0] != pair[1]), fitting[0])


def _written(history: History, name: str) -> str:
    last = history.last(name)
    if last is None:
        return ""
    unit = unit_of(name)
    if unit == "bytes" and last[1] >= 0:
        return format_bytes(int(last[1]))
    return f"{short(last[1])}{f' {unit}' if unit else ''}"


def _beside(parts: tuple[Row, ...], width: int) -> Row:
    """Lines of neighbouring panels as one, each in its width."""
    row: Row = []
    for index, part in enumerate(parts):
        row += [("  ", "")] * (index > 0) + part
        if index + 1 < len(parts):
            row.append((" " * max(0, width - sum(_cells(text) for text, _ in part)), ""))
    return row


def _cut(row: Row, width: int) -> Row:
    """A line without what does not fit on the screen."""
    from rich.cells import set_cell_size

    cut: Row = []
    for text, style in row:
        cells = _cells(text)
        cut.append((text if cells <= width else set_cell_size(text, width), style))
        width = max(0, width - cells)
    return cut


def _cells(text: str) -> int:
    """How many columns of a terminal a text takes."""
    from rich.cells import cell_len

    return cell_len(text)
