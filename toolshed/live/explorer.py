"""Explorer: a tree to walk through: levels on demand, a search, the worst first, a look into an array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import jax
import numpy as np
import traitlets

from toolshed import paths
from toolshed.insight import HISTOGRAM_EDGES
from toolshed.insight.leaves import leaf_of
from toolshed.live.closeup import closeup
from toolshed.views.badges import alarms, badges, compact
from toolshed.views.outline import Node
from toolshed.views.panels import printable
from toolshed.views.show import measured
from toolshed.views.totals import concern

MOST = 200
"""Rows in one answer."""
FIRST = 40
"""Rows that are there before anything is opened."""

_STATIC = Path(__file__).parent / "static"
_NUMBERS = ("norm", "rms", "mean", "std", "min", "max", "absmax", "sparsity")


class Explorer(anywidget.AnyWidget):
    """A tree with its statistics, to be opened level by level; `toolshed.explore` makes one.

    The tree was measured when this was made. It keeps the tree's arrays, so that one can be looked into:
    then, and for that one alone, a picture of at most 96 by 192 values leaves the device.

    Args:
      tree: any pytree, as `toolshed.show` takes it.
    """

    _esm = _STATIC / "explorer.js"
    _css = _STATIC / "explorer.css"
    rows = traitlets.List().tag(sync=True)
    edges = traitlets.List().tag(sync=True)

    def __init__(self, tree: Any):
        root = measured(tree)
        self._nodes = list(root.walk())
        self._places = {id(node): place for place, node in enumerate(self._nodes)}
        edges = [float(edge) for edge in HISTOGRAM_EDGES[1:-1]]
        super().__init__(rows=self._first(root), edges=edges)
        self.on_msg(self._hear)

    def __repr__(self) -> str:
        return f"Explorer({self._nodes[0].word}, {self._nodes[0].total.leaves:,} arrays)"

    # --- rows -----------------------------------------------------------------------------------------

    def _first(self, root: Node) -> list[dict[str, Any]]:
        """The first picture: the root, opened on the way to bad news, then as far as there is room."""
        row = self._row(root)
        waiting, room = [(root, row)], FIRST
        while waiting and room > 0:
            waiting.sort(key=lambda pair: pair[0].total.finite)
            node, opened = waiting.pop(0)
            opened["inside"], opened["left"] = self._inside(node)
            room -= len(opened["inside"])
            inside = [self._nodes[one["id"]] for one in opened["inside"]]
            waiting += [pair for pair in zip(inside, opened["inside"], strict=True) if pair[0].children]
            waiting = [pair for pair in waiting if len(pair[0].children) <= room]
        return [row]

    def _row(self, node: Node) -> dict[str, Any]:
        """What a line says: all of it text."""
        return {
            "id": self._places[id(node)],
            "name": printable(node.name, 120),
            "word": printable(compact(node.word), 120),
            "note": printable(node.note, 120),
            "path": node.path,
            "alarms": [badge.text for badge in alarms(node)],
            "badges": [list(badge) for badge in badges(node) if badge.text],
            "opens": bool(node.children),
            "looks": node.array is not None and node.total.summary is not None,
        }

    def _inside(self, node: Node) -> tuple[list[dict[str, Any]], int]:
        """The lines of what a node holds, those with bad news in any case, and how many are left out."""
        children = node.children
        if len(children) > MOST:
            order = sorted(range(len(children)), key=lambda place: children[place].total.finite)
            children = [children[place] for place in sorted(order[:MOST])]
        return [self._row(child) for child in children], len(node.children) - len(children)

    def _found(self, text: str, worst: bool) -> tuple[list[dict[str, Any]], int]:
        """Arrays whose path has a text in it or matches a pattern; all of them if it is empty."""
        leaves = [node for node in self._nodes if node.array is not None]
        if paths.is_pattern(text):
            wanted = set(paths.match(text, [leaf.path for leaf in leaves]))
            leaves = [leaf for leaf in leaves if leaf.path in wanted]
        elif text:
            leaves = [leaf for leaf in leaves if text.lower() in leaf.path.lower()]
        if worst:
            leaves.sort(key=lambda leaf: concern(leaf.total))
        rows = [{**self._row(leaf), "name": printable(leaf.path, 160)} for leaf in leaves[:MOST]]
        return rows, len(leaves) - len(rows)

    # --- from and to a front end ----------------------------------------------------------------------

    def _hear(self, _: Any, message: Any, buffers: Any) -> None:
        """Answers a front end. What fails is said there; the kernel goes on."""
        del buffers
        answer = {"kind": message.get("kind"), "number": message.get("number")}
        try:
            if message["kind"] == "open":
                rows, left = self._inside(self._nodes[int(message["id"])])
                self.send({**answer, "rows": rows, "left": left})
            elif message["kind"] == "find":
                rows, left = self._found(str(message["text"])[:500], bool(message["worst"]))
                self.send({**answer, "rows": rows, "left": left})
            elif message["kind"] == "look":
                self._look(self._nodes[int(message["id"])], answer)
        except Exception as error:
            self.send({**answer, "problem": printable(f"{type(error).__name__}: {error}", 300)})

    def _look(self, node: Node, answer: dict[str, Any]) -> None:
        """Sends the numbers of an array, its histogram, and a picture of its values if it is there."""
        summary = node.total.summary
        numbers = [[name, f"{getattr(summary, name):.5g}"] for name in _NUMBERS]
        numbers += [[name, f"{getattr(summary, name):,}"] for name in ("count", "nan", "posinf", "neginf")]
        histogram = [int(count) for count in summary.histogram]
        array = getattr(node.array, "data_array", node.array)
        if summary.kind != "numbers" or (isinstance(array, jax.Array) and array.is_deleted()):
            words = (
                "its memory was given to a compiled step since" if summary.kind == "numbers" else summary.kind
            )
            self.send({**answer, "numbers": numbers, "histogram": histogram, "shape": [0, 0], "words": words})
            return
        values, whole = closeup(leaf_of(array).array)
        shape = [*values.shape, *whole]
        picture = np.ascontiguousarray(values, np.float32).tobytes()
        self.send(
            {**answer, "numbers": numbers, "histogram": histogram, "shape": shape, "words": ""}, [picture]
        )
