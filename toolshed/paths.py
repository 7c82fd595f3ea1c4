"""Paths: how a leaf of a tree is named, found and matched.

A path is the keys from the root to a leaf joined by ``/``: ``grads/mlp/0/weights``. Parameter names
may hold ``/`` and ``.`` themselves (penzai calls a parameter ``mlp/Affine_0/Linear.weights``), so a
path is never split to find its leaf; the tree is walked along it instead.

In a pattern ``*`` stands for any part of one segment and ``**`` for any number of segments. Segments
end at ``/`` or ``.``.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from toolshed.errors import ContextKeyError, ToolshedError


def key_string(key: Any) -> str:
    """The plain text of one jax tree key: a field's name, a dict's key, a position."""
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def path_string(keys: Iterable[Any]) -> str:
    """The keys of a jax key path joined by ``/``."""
    return "/".join(map(key_string, keys))


def is_arraylike(node: Any) -> bool:
    """True for arrays and for named arrays, which are drawn and addressed as one leaf."""
    return hasattr(node, "dtype")


def flatten(tree: Any) -> dict[str, Any]:
    """Every leaf of ``tree`` by its path, in the tree's order; a named array is one leaf.

    Raises:
      ToolshedError: two leaves have the same path, as in ``{"a/b": x, "a": {"b": y}}``.
    """
    leaves: dict[str, Any] = {}
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_arraylike)[0]:
        path = path_string(keys)
        if path in leaves:
            raise ToolshedError(f"Two leaves have the path {path!r}. Rename one of their keys.")
        leaves[path] = leaf
    return leaves


def children(node: Any) -> dict[str, Any]:
    """The direct children of a tree node by key; empty for a leaf."""
    if is_arraylike(node):
        return {}
    if isinstance(node, Mapping):
        return {str(key): value for key, value in node.items()}
    pairs = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)[0]
    return {path_string(keys): child for keys, child in pairs if keys}


def lookup(tree: Any, path: str) -> Any:
    """The leaf at ``path``, or else the subtree there.

    Raises:
      KeyError: nothing is there.
    """
    found = list(_at(tree, path))
    if not found:
        raise KeyError(path)
    return next((node for node in found if not children(node)), found[0])


def _at(tree: Any, path: str) -> Iterator[Any]:
    """All that a path can mean: with keys that hold ``/`` it may be more than one node."""
    for key, child in children(tree).items():
        if key == path:
            yield child
        elif path.startswith(key + "/"):
            yield from _at(child, path[len(key) + 1 :])


def is_pattern(path: str) -> bool:
    """True if the path has a ``*`` in it."""
    return "*" in path


def match(pattern: str, paths: Iterable[str]) -> list[str]:
    """The paths that match a glob, in their order."""
    regex = _compile(pattern)
    return [path for path in paths if regex.fullmatch(path)]


@functools.lru_cache(maxsize=256)
def _compile(pattern: str) -> re.Pattern[str]:
    separator, segment = r"[/.]", r"[^/.]*"
    out = ""
    for token in re.split(r"(\*\*[/.]|[/.]\*\*|\*\*|\*|[/.])", pattern):
        if token in ("**/", "**."):
            out += rf"(?:.*{separator})?"
        elif token in ("/**", ".**"):
            out += rf"(?:{separator}.*)?"
        elif token == "**":
            out += r".*"
        elif token == "*":
            out += segment
        elif token in ("/", "."):
            out += separator
        else:
            out += re.escape(token)
    return re.compile(out, re.DOTALL)


def find(tree: Any, path: str, where: str) -> Any:
    """The leaf or subtree at a path; for a path with ``*``, a dict of all leaves that match.

    Args:
      tree: what the path leads into.
      path: a path or a pattern.
      where: what to call the tree in a message.

    Raises:
      ContextKeyError: nothing is there, or nothing matches; the nearest real paths are named.
    """
    if is_pattern(path):
        flat = flatten(tree)
        matching = match(path, flat)
        if matching:
            return {name: flat[name] for name in matching}
    else:
        try:
            return lookup(tree, path)
        except KeyError:
            pass
    raise missing(path, [*flatten(tree), *children(tree)], where)


def nearest(path: str, known: Iterable[str], n: int = 3) -> list[str]:
    """The known paths most like ``path``, best first."""
    return difflib.get_close_matches(path, list(dict.fromkeys(known)), n=n, cutoff=0.4)


def missing(path: str, known: Iterable[str], where: str) -> ContextKeyError:
    """The error for a path that names nothing: says which real ones are near."""
    known = list(known)
    close = nearest(path, known)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    if not close and known:
        hint = f" There is {', '.join(known[:8])}{', …' if len(known) > 8 else ''}."
    return ContextKeyError(f"No {path!r} in {where}.{hint}")


def describe(value: Any) -> str:
    """Shape and dtype of a leaf in one word, such as ``float32[8,32]``; the type of anything else."""
    if hasattr(value, "named_shape"):
        sizes = [*map(str, value.positional_shape)]
        sizes += [f"{name}:{size}" for name, size in value.named_shape.items()]
        return f"{_name_of(value.dtype)}[{','.join(sizes)}]"
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{_name_of(value.dtype)}[{','.join(map(str, value.shape))}]"
    if isinstance(value, (bool, int, float, complex)):
        return f"{type(value).__name__} {value!r}"
    return type(value).__name__


def _name_of(dtype: Any) -> str:
    """A dtype in words; numpy takes a while to find them, so those of its plain ones are kept."""
    is_plain = isinstance(dtype, np.dtype) and dtype.names is None
    return _kept_name_of(dtype) if is_plain else str(dtype)


@functools.lru_cache(maxsize=256)
def _kept_name_of(dtype: np.dtype[Any]) -> str:
    return str(dtype)
