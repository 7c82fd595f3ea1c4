"""Show: any tree with what is known of its values, on one picture."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from toolshed import paths
from toolshed.errors import ToolshedError
from toolshed.insight.compare import ratio
from toolshed.training import Context
from toolshed.views import drawn
from toolshed.views.outline import Node, folded, outline
from toolshed.views.totals import add_up, concern, measure


class View:
    """A tree and what was known of its values when it was shown; the value of a cell.

    It holds no array. ``print(view)`` writes as much as is open as text.
    """

    def __init__(self, root: Node, head: str = ""):
        for node in root.walk():
            if node.array is not None:
                node.array = ()  # what is known stays, the array need not
        self._root, self._head = root, head

    @functools.cached_property
    def html(self) -> str:
        """What a notebook shows."""
        return drawn.to_html(self._root, self._head)

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return drawn.to_text(self._root, self._head)


def show(tree: Any, *, select: str | None = None, worst: int | None = None) -> View:
    """Shows any tree: a model, a state, gradients, a Context, with statistics of every array.

    Each array has its dtype and shape, bytes, norm and a histogram: signed, with 0 in the middle and
    powers of ten to both sides. NaN and infinities stand in red, on every node above them too. Where a
    Context has both parameters and updates, the size of each update is beside that of its parameter: about
    1e-3 is usual. The path behind a line can be copied: it is the key of that value in a Context.

    Values are measured where they lie; only statistics travel, and for those this waits. What is too much
    for one picture is cut, with a line that says so.

    Args:
      tree: any pytree.
      select: a path, a pattern with ``*``, or a part of one: only arrays that match.
      worst: show as many arrays, the worst first: those with NaN, with infinities, with updates of an
        unusual size, with large values.

    Raises:
      ToolshedError: nothing matches ``select``, or ``worst`` is no number from 1.

    Example:
      >>> import jax.numpy as jnp, toolshed
      >>> view = toolshed.show({"w": jnp.array([3.0, 4.0, jnp.nan]), "b": jnp.zeros(2)})
      >>> "NaN ×1" in repr(view)
      True
    """
    return View(narrowed(measured(tree), select, worst))


def measured(tree: Any) -> Node:
    """The outline of a tree with the totals of all nodes; waits for the device."""
    root = outline(tree)
    measure(root)
    if isinstance(tree, Context):
        _set_ratios(root)
    return root


def _set_ratios(root: Node) -> None:
    """Fills the update ratios of parameters, gradients and updates."""
    norms = {leaf.path: leaf.total.norm for leaf in root.leaves()}
    for leaf in root.leaves():
        field, _, key = leaf.path.partition("/")
        if field in ("params", "grads", "updates") and f"updates/{key}" in norms and f"params/{key}" in norms:
            leaf.total.ratio = ratio(norms[f"updates/{key}"], norms[f"params/{key}"])
    add_up(root)


def narrowed(root: Node, select: str | None, worst: int | None) -> Node:
    """The outline with those leaves alone that were asked for."""
    if select is not None:
        known = [leaf.path for leaf in root.leaves()]
        wanted = set(_matching(select, known))
        if not wanted:
            raise paths.missing(select, known, "this tree")
        _keep(root, wanted)
        folded(root)
        add_up(root)
    if worst is None:
        return root
    if not isinstance(worst, int) or worst < 1:
        raise ToolshedError(f"worst={worst!r}; expected how many arrays to show, a number from 1.")
    leaves = sorted(root.leaves(), key=lambda leaf: concern(leaf.total))[:worst]
    flat = [dataclasses.replace(leaf, name=leaf.path or "value") for leaf in leaves]
    found = dataclasses.replace(root, children=flat, array=None, note=f"the worst {len(flat):,} arrays first")
    return found


def _matching(select: str, known: list[str]) -> list[str]:
    if paths.is_pattern(select):
        return paths.match(select, known)
    return [path for path in known if select in path]


def _keep(node: Node, wanted: set[str]) -> bool:
    """Drops what holds none of the wanted leaves."""
    node.children = [child for child in node.children if _keep(child, wanted)]
    return bool(node.children) or (node.array is not None and node.path in wanted)
