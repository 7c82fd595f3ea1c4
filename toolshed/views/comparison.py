"""Compare: two trees in one, with the values of both sides and how far they lie apart."""

from __future__ import annotations

import dataclasses
from typing import Any

from toolshed.insight import TreeDifference, tree_diff
from toolshed.views.outline import Node, outline
from toolshed.views.show import View, narrowed
from toolshed.views.totals import Total, add_up, measure


def compare(
    a: Any,
    b: Any,
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    select: str | None = None,
    worst: int | None = None,
) -> View:
    """Shows two trees as one, side by side: two models, a state before and after, two sets of gradients.

    On every line stand both norms, ‖b - a‖ / ‖a‖, and where the values lie furthest apart; on what holds
    others, how many arrays below differ. What only one of them has says so.

    Args:
      a: any pytree.
      b: another one.
      rtol: values differ that are further apart than ``atol + rtol * |a|``.
      atol: see ``rtol``.
      select: as in `show`.
      worst: as in `show`: the largest relative change first.

    Raises:
      StateError: an array was donated to a compiled step and is gone.
      ToolshedError: as in `show`; or the trees are being traced.

    Example:
      >>> import jax.numpy as jnp, toolshed
      >>> print(toolshed.compare({"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([3.0, 4.5])}))
      dict of 1    ‖·‖ 5         → ‖·‖ 5.41      1 of 1 arrays differ
        w f32[2]   ‖·‖ 5         → ‖·‖ 5.41      0.1       max |Δ| 0.5 at [1]: 4 → 4.5
    """
    left, right = outline(a), outline(b)
    sides = [{leaf.path: leaf.array for leaf in root.leaves()} for root in (left, right)]
    found = tree_diff(*sides, rtol=rtol, atol=atol)
    measure(left)
    measure(right)
    root = _merged(left, right, found)
    add_up(root)
    return View(narrowed(root, select, worst))


def _merged(a: Node | None, b: Node | None, found: TreeDifference) -> Node:
    """One node for both, with what each has below it."""
    node = a or b
    assert node is not None
    if node.array is not None or (a is not None and b is not None and b.array is not None):
        return _leaf(a, b, found)
    inside = {child.name: child for child in b.children} if b is not None else {}
    children = []
    for child in a.children if a is not None else []:
        children.append(_merged(child, inside.pop(child.name, None), found))
    children += [_merged(None, child, found) for child in inside.values()]
    note = node.note if a is not None and b is not None and a.note == b.note else ""
    return dataclasses.replace(node, children=children, note=note)


def _leaf(a: Node | None, b: Node | None, found: TreeDifference) -> Node:
    node = a or b
    assert node is not None
    path = a.path if a is not None and a.path in found else node.path
    difference = found.get(path, None)
    if difference is None and (a is None or b is None or a.array is None or b.array is None):
        side = "a" if b is None else "b"
        words = f"only in {side}" if a is None or b is None else f"{a.word} → {b.word}"
        total = dataclasses.replace(node.total or Total(), differs=1, what=words)
    else:
        total = dataclasses.replace(node.total, differs=int(difference is not None), difference=difference)
    sides = (a.total if a is not None else None, b.total if b is not None else None)
    total.sides = (sides[0] or Total(), sides[1] or Total())
    return dataclasses.replace(
        node, children=[], array=node.array if node.array is not None else (), total=total
    )
