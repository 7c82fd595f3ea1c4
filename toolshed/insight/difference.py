"""Two trees side by side: what one has and the other lacks, and how far their values lie apart."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from toolshed import paths
from toolshed.errors import StateError, ToolshedError
from toolshed.insight import compare
from toolshed.insight.leaves import DELETED, KEY, NUMBERS, OTHER, TRACED, Leaf, leaves_of
from toolshed.insight.structure import mismatches, short
from toolshed.insight.tables import number, table
from toolshed.keys import raw_key
from toolshed.state import TrainState

_SHOWN = 40


@dataclasses.dataclass(frozen=True)
class LeafDifference:
    """One place where two trees differ.

    Attributes:
      path: where.
      what: ``"only in a"``, ``"only in b"``, ``"shape"``, ``"dtype"``, ``"values"``, ``"key"``,
        ``"object"`` (things that are no arrays), ``"type"`` (nodes of other classes), ``"static"`` (what
        a class holds beside its leaves: an optimiser, a size).
      a, b: what is there in each tree, in a word; empty where nothing is.
      differing: how many values differ, by more than the tolerances.
      count: how many values there are.
      relative: ‖b - a‖ / ‖a‖, over the values that are finite in both. Infinite where ``a`` is zero,
        and where a value is finite in one tree alone. NaN where no values were compared.
      largest: the largest |b - a| between finite values.
      index: where the values lie furthest apart; None where none were compared.
      values: the two values there.
    """

    path: str
    what: str
    a: str = ""
    b: str = ""
    differing: int = 0
    count: int = 0
    relative: float = math.nan
    largest: float = math.nan
    index: tuple[int, ...] | None = None
    values: tuple[float, float] | None = None


class TreeDifference(Mapping[str, LeafDifference]):
    """What differs between two trees by path: structure first, then the largest relative change.

    Attributes:
      leaves: how many leaves there are, in both trees together.
    """

    def __init__(self, differences: Iterable[LeafDifference], leaves: int):
        ordered = sorted(differences, key=_order)
        self._by_path = {found.path: found for found in ordered}
        self.leaves = leaves

    def __getitem__(self, path: str) -> Any:
        """The difference at a path; for a path with ``*``, a TreeDifference of those that match."""
        if path in self._by_path:
            return self._by_path[path]
        matching = paths.match(path, self._by_path) if paths.is_pattern(path) else []
        if not matching:
            raise paths.missing(path, self._by_path, "this difference")
        return TreeDifference([self._by_path[name] for name in matching], self.leaves)

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_path)

    def __len__(self) -> int:
        return len(self._by_path)

    @property
    def same(self) -> bool:
        """True if nothing differs."""
        return not self._by_path

    def __repr__(self) -> str:
        if self.same:
            return f"No difference in {self.leaves:,} leaves"
        found = list(self._by_path.values())
        lines = [f"{len(found):,} differences in {self.leaves:,} leaves"]
        lines += table(_HEAD, [_row(one) for one in found[:_SHOWN]], left=3)
        if len(found) > _SHOWN:
            lines.append(f"… and {len(found) - _SHOWN:,} more")
        return "\n".join(lines)


def tree_diff(a: Any, b: Any, *, rtol: float = 0.0, atol: float = 0.0) -> TreeDifference:
    """What differs between two trees: in structure, shapes, dtypes and values, the largest change first.

    For two states, two models, a state and a snapshot of one, a state before and after a step. Values are
    compared where they lie (``b``'s are brought to where ``a``'s are), in calls that compile quickly for
    thousands of leaves; a few numbers a leaf travel, for which this waits. NaN in the same place is equal.

    Args:
      a: a tree.
      b: another one.
      rtol: values differ that are further apart than ``atol + rtol * |a|``; by default any that are not
        equal.
      atol: see ``rtol``.

    Raises:
      StateError: an array was donated to a compiled step and is gone.
      ToolshedError: the trees are being traced, so that they have no values yet.

    Example:
      >>> import jax.numpy as jnp, toolshed
      >>> before = {"w": jnp.array([3.0, 4.0]), "b": jnp.zeros(2)}
      >>> after = {"w": jnp.array([3.0, 4.5]), "b": jnp.zeros(2)}
      >>> found = toolshed.insight.tree_diff(before, after)
      >>> list(found), round(found["w"].relative, 6), found["w"].index, found["w"].values
      (['w'], 0.1, (1,), (4.0, 4.5))
    """
    if isinstance(a, TrainState) and _is_snapshot(b):
        a = a.to_snapshot()
    if isinstance(b, TrainState) and _is_snapshot(a):
        b = b.to_snapshot()
    old, new = leaves_of(a), leaves_of(b)
    _check_values(old, "a")
    _check_values(new, "b")
    found = [LeafDifference(path, what, x, y) for path, what, x, y in mismatches(a, b)]
    gone, came = ([path for path in x if path not in y] for x, y in ((old, new), (new, old)))
    found += [LeafDifference(path, "only in a", a=old[path].description) for path in gone]
    found += [LeafDifference(path, "only in b", b=new[path].description) for path in came]
    pairs = {path: (leaf, new[path]) for path, leaf in old.items() if path in new}
    found += [one for path, pair in pairs.items() if (one := _without_values(path, *pair))]
    return TreeDifference([*found, *_in_values(pairs, rtol, atol)], len({**old, **new}))


def _is_snapshot(tree: Any) -> bool:
    return isinstance(tree, Mapping) and "schema" in tree


def _check_values(leaves: Mapping[str, Leaf], side: str) -> None:
    for path, leaf in leaves.items():
        if leaf.kind == DELETED:
            raise StateError(
                f"The array at {path or 'the root'} of {side} is deleted: it was given to a step that"
                " donates. Compare with a copy, or build the step without donate=True."
            )
        if leaf.kind == TRACED:
            raise ToolshedError(
                f"{path or 'The root'} of {side} is being traced, so it has no values to compare. Return both"
                " trees from the compiled function and compare them outside."
            )


def _is_comparable(a: Leaf, b: Leaf) -> bool:
    """True for two arrays of numbers of one shape."""
    return a.kind == b.kind == NUMBERS and a.shape == b.shape and a.count > 0


def _without_values(path: str, a: Leaf, b: Leaf) -> LeafDifference | None:
    """How two leaves differ that cannot be compared value by value, if they do."""
    if _is_comparable(a, b):
        return None
    if OTHER in (a.kind, b.kind):
        if a.kind == b.kind and _equal_objects(a.array, b.array):
            return None
        return LeafDifference(path, "object", _word(a), _word(b))
    if a.shape != b.shape or a.array.dtype != b.array.dtype:
        what = "shape" if a.shape != b.shape else "dtype"
        return LeafDifference(path, what, a.description, b.description)
    if a.kind == b.kind == KEY:
        bits = [np.asarray(raw_key(leaf.array)).reshape(a.count, -1) for leaf in (a, b)]
        differing = int((bits[0] != bits[1]).any(axis=1).sum())
        if differing:
            return LeafDifference(
                path, "key", a.description, b.description, differing=differing, count=a.count
            )
    return None


def _word(leaf: Leaf) -> str:
    return short(leaf.array) if leaf.kind == OTHER else leaf.description


def _equal_objects(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return bool(np.array_equal(a, b))
    return a is b or bool(a == b)


def _in_values(pairs: Mapping[str, tuple[Leaf, Leaf]], rtol: float, atol: float) -> Iterator[LeafDifference]:
    pairs = {path: pair for path, pair in pairs.items() if _is_comparable(*pair)}
    old, new = ({path: _real(pair[i].array) for path, pair in pairs.items()} for i in range(2))
    for path, words in compare.compare_arrays(old, new, rtol=rtol, atol=atol).items():
        a, b = pairs[path]
        same_dtype = a.array.dtype == b.array.dtype
        if words[compare.DIFFERING] or not same_dtype:
            yield _of_words(path, "values" if same_dtype else "dtype", a, b, words)


def _real(array: Any) -> Any:
    """Complex numbers as their two parts, along one more axis; other arrays as they are."""
    if not np.issubdtype(array.dtype, np.complexfloating):
        return array
    return _parts(array) if isinstance(array, jax.Array) else np.stack([array.real, array.imag], axis=-1)


@jax.jit
def _parts(array: jax.Array) -> jax.Array:
    return jnp.stack([array.real, array.imag], axis=-1)


def _of_words(path: str, what: str, a: Leaf, b: Leaf, words: np.ndarray) -> LeafDifference:
    numbers = compare.floats(words)
    relative = compare.relative_change(words)
    at = int(words[compare.INDEX]) // (2 if np.issubdtype(a.array.dtype, np.complexfloating) else 1)
    return LeafDifference(
        path,
        what,
        a.description,
        b.description,
        differing=int(words[compare.DIFFERING]),
        count=a.count,
        relative=math.inf if words[compare.NONFINITE] else 0.0 if math.isnan(relative) else relative,
        largest=numbers[compare.LARGEST],
        index=tuple(int(i) for i in np.unravel_index(at, a.shape)),
        values=(numbers[compare.VALUE_A], numbers[compare.VALUE_B]),
    )


_STRUCTURE = ("only in a", "only in b", "type", "static", "shape", "object", "dtype", "key")
_HEAD = ["", "", "", "‖b-a‖/‖a‖", "max |b-a|", "differ"]


def _order(found: LeafDifference) -> tuple[int, float, str]:
    """Structure first, then values by their relative change, then by path."""
    rank = _STRUCTURE.index(found.what) if found.what in _STRUCTURE else len(_STRUCTURE)
    return rank, -found.relative if found.what == "values" else 0.0, found.path


def _row(found: LeafDifference) -> list[str]:
    if found.index is None:
        sides = f"{found.a} → {found.b}" if found.a and found.b else found.a or found.b
        return [found.path, found.what, sides, "", "", f"{found.differing:,}" if found.differing else ""]
    assert found.values is not None
    at = f"[{', '.join(map(str, found.index))}]"
    change = f"{number(found.values[0])} → {number(found.values[1])} at {at}"
    if found.what == "dtype":
        change = f"{found.a} → {found.b}"
    return [
        found.path,
        found.what,
        change,
        number(found.relative),
        number(found.largest),
        f"{found.differing:,} of {found.count:,}",
    ]
