"""Drawn: an outline with its badges as a treescope tree, bounded, and readable on dark and light ground.

All that comes from a tree goes through treescope's text parts and its copy button, which escape it. No
array is given to treescope: it would copy the array to the host, and write names of axes into a script.
"""

from __future__ import annotations

import heapq
import html
from collections.abc import Sequence
from typing import Any

from treescope import lowering
from treescope import rendering_parts as parts

from toolshed.views.badges import Badge, alarms, badges, compact
from toolshed.views.outline import Node
from toolshed.views.panels import printable

MOST_LINES = 600
"""Nodes in a picture."""
MOST_CHILDREN = 60
"""Nodes in a picture that one node holds directly."""
OPEN_LINES = 40
"""Lines of a picture that are visible before anything is opened."""
LONGEST_PATH = 400
"""Characters of a path that can be copied; longer ones have no button."""

_BOX = "border-radius:3px;"
_STYLES = {
    "quiet": "opacity:.6;",
    "norm": "",
    "note": "font-style:italic;opacity:.8;",
    "good": _BOX + "background:rgba(0,158,115,.22);",
    "odd": _BOX + "background:rgba(230,159,0,.3);",
    "bad": _BOX + "background:#c03a00;color:#fff;font-weight:600;",
    "chart": "color:#4a90c4;background:rgba(127,127,127,.1);font-size:80%;",
}
_NAME = "font-weight:600;"
_WORD = "opacity:.75;"
_NOTE = "opacity:.5;"
_COPY = "opacity:.55;"
WIDEST = 66
"""Characters of a line before the columns begin, indentation included; longer ones shift them."""
# Wide trees scroll inside of the cell. The colours are those of the page: Jupyter's, where it has some. Where
# a page takes scripts and styles away, as of a notebook that is not trusted, the same stands there as text.
_WRAP = (
    "<style>.toolshed-tree{{overflow-x:auto;max-width:100%}}.toolshed-tree>pre{{display:none}}"
    ".toolshed-tree treescope-container::part(treescope_root)"
    "{{background:transparent;color:var(--jp-content-font-color1,inherit);line-height:1.55;font-size:12px;"
    "font-family:var(--jp-code-font-family,ui-monospace,Menlo,Consolas,monospace)}}</style>"
    '<div class="toolshed-tree">{}<pre>{}</pre></div>'
)


def to_html(root: Node, head: str) -> str:
    """A page's piece that shows an outline; scripts in it are treescope's own alone."""
    picture = _picture(root, head)
    tree = lowering.render_to_html_as_root(picture, compressed=True)
    return _WRAP.format(tree, html.escape(lowering.render_to_text_as_root(picture)))


def to_text(root: Node, head: str) -> str:
    """An outline as text, as far as it is open."""
    return lowering.render_to_text_as_root(_picture(root, head))


def _picture(root: Node, head: str) -> Any:
    drawn = _chosen(root)
    picture = _Picture(drawn, _opened(root, drawn), _widest(root, drawn))
    lines = [_quiet(head, _NOTE)] if head else []
    return parts.on_separate_lines([*lines, picture.line(root, 0)])


def _widest(root: Node, drawn: dict[int, list[Node]]) -> int:
    """The width of the longest label with columns after it that does not shift them, indentation included."""
    widths, waiting = [0], [(root, 0)]
    while waiting:
        node, depth = waiting.pop()
        if node.total.leaves:
            widths.append(2 * depth + len(_label_text(node)))
        waiting += [(child, depth + 1) for child in drawn.get(id(node), [])]
    return max((width for width in widths if width <= WIDEST), default=0)


# --- what is drawn ------------------------------------------------------------------------------------


def _chosen(root: Node) -> dict[int, list[Node]]:
    """The children of each node that are drawn, by the node's id: bad news first, then from the root."""
    drawn: dict[int, list[Node]] = {}
    room, number = MOST_LINES, 0
    waiting: list[tuple[int, int, int, Node]] = [(0, 0, 0, root)]
    while waiting and room > 0:
        _, depth, _, node = heapq.heappop(waiting)
        take = _first(node.children, min(room, MOST_CHILDREN))
        drawn[id(node)] = take
        room -= len(take)
        for child in take:
            if child.children:
                number += 1
                heapq.heappush(waiting, (_rank(child), depth + 1, number, child))
    return drawn


def _rank(node: Node) -> int:
    return 0 if not _is_fine(node) else 2 if node.later else 1


def _is_fine(node: Node) -> bool:
    return node.total.finite and not node.total.differs


def _first(children: Sequence[Node], most: int) -> list[Node]:
    """As many children as there is room for, in their order: those with bad news, then the first."""
    if len(children) <= most:
        return list(children)
    order = sorted(range(len(children)), key=lambda place: _is_fine(children[place]))
    return [children[place] for place in sorted(order[:most])]


def _opened(root: Node, drawn: dict[int, list[Node]]) -> set[int]:
    """The ids of the nodes that are open at first: on the way to bad news, then near the root."""
    opened: set[int] = set()
    lines, number = 1, 0
    waiting: list[tuple[int, int, int, Node]] = [(0, 0, 0, root)]
    while waiting:
        rank, depth, _, node = heapq.heappop(waiting)
        inside = drawn.get(id(node), [])
        if depth and (rank > 1 or lines + len(inside) > (OPEN_LINES if rank else 3 * OPEN_LINES)):
            continue
        opened.add(id(node))
        lines += len(inside)
        for child in inside:
            if child.children:
                number += 1
                heapq.heappush(waiting, (_rank(child), depth + 1, number, child))
    return opened


# --- how it looks -------------------------------------------------------------------------------------


class _Picture:
    """The lines of a picture.

    Args:
      drawn: the children that are drawn, by the id of their node.
      opened: the ids of nodes that are open.
      width: of labels.
    """

    def __init__(self, drawn: dict[int, list[Node]], opened: set[int], width: int):
        self._drawn, self._opened, self._width = drawn, opened, width

    def line(self, node: Node, depth: int) -> Any:
        """A node with all below it."""
        room = " " * max(0, self._width - 2 * depth - len(_label_text(node)))
        label = [
            *_label(node),
            *map(_badge, alarms(node)),
            *([parts.text(room)] if node.total.leaves else []),
            *map(_badge, badges(node)),
        ]
        path = node.path if node.total.leaves and len(node.path) <= LONGEST_PATH else ""
        copy = parts.custom_style(parts.build_copy_button(path), _COPY) if path else parts.empty_part()
        if not node.children:
            return parts.siblings(*label, copy)
        inside = [self.line(child, depth + 1) for child in self._drawn.get(id(node), [])]
        left = _left(node, self._drawn.get(id(node), []))
        if left:
            inside.append(_quiet(_cut(left, bool(inside)), _NOTE))
        is_open = id(node) in self._opened
        return parts.build_custom_foldable_tree_node(
            label=parts.siblings(*label),
            contents=parts.siblings(copy, parts.fold_condition(expanded=parts.indented_children(inside))),
            expand_state=parts.ExpandState.EXPANDED if is_open else parts.ExpandState.COLLAPSED,
        ).renderable


def _label(node: Node) -> list[Any]:
    words = [(node.name, _NAME), (compact(node.word), _WORD), (node.note, _NOTE)]
    made: list[Any] = []
    for word, style in words:
        if word:
            made += [parts.custom_style(parts.text(printable(word, 120)), style), parts.text(" ")]
    return made


def _label_text(node: Node) -> str:
    """The text that `_label` and alarms make."""
    words = [printable(word, 120) + " " for word in (node.name, compact(node.word), node.note) if word]
    return "".join(words) + "".join(badge.text for badge in alarms(node))


def _left(node: Node, taken: list[Node]) -> list[Node]:
    there = {id(child) for child in taken}
    return [child for child in node.children if id(child) not in there]


def _cut(left: Sequence[Node], more: bool) -> str:
    """What is not drawn, and how to see it."""
    leaves = sum(child.total.leaves for child in left)
    bad = sum(child.total.nan + child.total.inf for child in left)
    warning = f", with {bad:,} values that are not finite" if bad else ""
    return (
        f"… {len(left):,} {'more ' if more else ''}not drawn, {leaves:,} arrays{warning};"
        " pass select='…' or worst=20 to see others"
    )


def _badge(badge: Badge) -> Any:
    text = parts.text(badge.text)
    return parts.custom_style(text, _STYLES[badge.kind]) if _STYLES[badge.kind] else text


def _quiet(text: str, style: str) -> Any:
    return parts.custom_style(parts.text(text), style)
