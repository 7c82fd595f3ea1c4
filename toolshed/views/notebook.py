"""Notebook: makes `show` the way in which a notebook displays trees of arrays, and undoes it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from penzai import pz

from toolshed.errors import ToolshedError, ViewWarning
from toolshed.state import TrainState
from toolshed.training import Context
from toolshed.views.show import show

_OWN = ("_repr_html_", "_repr_mimebundle_", "_repr_png_", "_repr_svg_", "_repr_markdown_", "_repr_latex_")
_LOOKED_AT = 1000  # leaves among which an array is looked for
_TEXT_TYPES = (TrainState, Context, pz.Struct)
_undo: list[Callable[[], None]] = []


def enable(shell: Any = None) -> None:
    """Has the notebook display every tree of arrays as `show` does: states, models, gradients, arrays.

    What has a display of its own keeps it. To call it again changes nothing; `disable` undoes it.
    ``%load_ext toolshed`` does the same.

    Args:
      shell: the IPython shell; by default that of this notebook.

    Raises:
      ToolshedError: there is no IPython here.
    """
    if _undo:
        return
    formatters = _shell(shell).display_formatter.formatters
    last = _Last()
    html, plain = formatters["text/html"], formatters["text/plain"]
    before = html.type_printers.get(object)
    html.for_type(object, lambda value: _html(value, before, last))
    _undo.append(lambda: _put_back(html, object, before))
    # The abstract jax.Array is no base class of what arrays are, and IPython goes by base classes.
    for kind in (*_TEXT_TYPES, type(jnp.zeros(()))):
        old = plain.type_printers.get(kind)
        plain.for_type(kind, lambda value, printer, cycle: printer.text(last.text(value)))
        _undo.append(lambda kind=kind, old=old: _put_back(plain, kind, old))


def disable() -> None:
    """Has the notebook display everything as it did before `enable`."""
    while _undo:
        _undo.pop()()


def load_ipython_extension(shell: Any) -> None:
    """What ``%load_ext toolshed`` calls."""
    enable(shell)


def unload_ipython_extension(shell: Any) -> None:
    """What ``%unload_ext toolshed`` calls."""
    del shell
    disable()


def _shell(shell: Any) -> Any:
    if shell is None:
        from IPython import get_ipython

        shell = get_ipython()
    if shell is None:
        raise ToolshedError("There is no notebook here to enable this in. Use print(toolshed.show(tree)).")
    return shell


def _put_back(formatter: Any, kind: type, printer: Any) -> None:
    if printer is None:
        formatter.pop(kind, None)
    else:
        formatter.for_type(kind, printer)


class _Last:
    """The view that was made last: IPython asks for the text and the picture of a value one by one."""

    def __init__(self) -> None:
        self._made: tuple[Any, Any] | None = None

    def view(self, value: Any) -> Any:
        """The view of a value, made once for two questions."""
        if self._made is not None and self._made[0] is value:
            view, self._made = self._made[1], None
            return view
        view = show(value)
        self._made = (value, view) if isinstance(value, (*_TEXT_TYPES, jax.Array)) else None
        return view

    def text(self, value: Any) -> str:
        """The view as text; the value's own repr where there is none."""
        try:
            return repr(self.view(value))
        except Exception as error:
            _warn(error)
            return repr(value)


def _html(value: Any, before: Any, last: _Last) -> str | None:
    """What a notebook shows of a value; None leaves it to its text."""
    own = getattr(type(value), "_repr_html_", None)
    if own is not None:
        return value._repr_html_()  # IPython does not look for it once there is a printer for all types
    if not any(hasattr(type(value), name) for name in _OWN) and _is_tree_of_arrays(value):
        try:
            return last.view(value).html
        except Exception as error:  # a display never stops a cell
            _warn(error)
    return before(value) if before is not None else None


def _warn(error: Exception) -> None:
    warnings.warn(f"The value could not be shown as a tree: {error}", ViewWarning, stacklevel=2)


def _is_tree_of_arrays(value: Any) -> bool:
    """True if there is an array among a tree's first leaves."""
    if isinstance(value, (TrainState, Context, jax.Array, pz.nx.NamedArrayBase, pz.nn.Layer)):
        return True
    if isinstance(value, (str, bytes, int, float, type)):
        return False
    waiting, seen = [value], 0
    while waiting and seen < _LOOKED_AT:
        node = waiting.pop()
        seen += 1
        if isinstance(node, (jax.Array, pz.nx.NamedArrayBase, pz.Parameter, pz.StateVariable)):
            return True
        if isinstance(node, Mapping):
            waiting.extend(list(node.values())[:_LOOKED_AT])
        elif isinstance(node, (list, tuple)):
            waiting.extend(node[:_LOOKED_AT])
        elif type(node) not in (str, bytes, int, float, type(None)):
            waiting.extend(_children(node))
    return False


def _children(node: Any) -> list[Any]:
    try:
        leaves, treedef = jax.tree_util.tree_flatten(node, is_leaf=lambda one: one is not node)
    except Exception:  # a stranger's flatten may raise anything
        return []
    return [] if jax.tree_util.treedef_is_leaf(treedef) else leaves
