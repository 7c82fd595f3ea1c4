"""Outline: any tree as nodes with a name, a path and a word on what is there, before anything is drawn.

Nothing here reads a value, and nothing that a model, a file or a person brings along runs but ``repr``.
"""

from __future__ import annotations

import dataclasses
import functools
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from penzai import pz

from toolshed import models, paths
from toolshed.errors import ModelError
from toolshed.models.penzai_v1 import ValueSlot
from toolshed.models.penzai_v2 import ParameterSlot, StateVariableSlot
from toolshed.state import TrainState, name_optimizer
from toolshed.training import Context
from toolshed.views.panels import printable

DEEPEST = 60
"""Levels that are looked into; what lies deeper is one line."""

_LATER = ("model_without_params", "opt_state", "aux")
_SLOTS = (ParameterSlot, StateVariableSlot, ValueSlot)
_VARIABLES = ("Parameter", "ParameterValue", "StateVariable", "FrozenParameter", "Value")
_SIMPLE = (bool, int, float, str, tuple)
_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


@dataclasses.dataclass(slots=True)
class Node:
    """One place in a tree.

    Attributes:
      name: the field, key or index that leads there; empty for the root.
      path: where it is, as a key of a Context; a pattern, ending in ``**``, for what only groups paths;
        empty for a layer of a model.
      word: the class of a node, dtype and shape of an array once it is measured, or what else there is.
      children: what it holds.
      array: the array of a leaf, or None.
      total: what is known of all arrays at or below; filled by `toolshed.views.totals`.
      note: a few words more, such as a class's static fields.
      apart: whether its norm says nothing about what stands beside it: constants of a model, the fields of
        a state.
      later: whether it is closed at first, because few come for it.
    """

    name: str
    path: str
    word: str
    children: list[Node] = dataclasses.field(default_factory=list)
    array: Any = None
    total: Any = None
    note: str = ""
    apart: bool = False
    later: bool = False

    def walk(self) -> Iterator[Node]:
        """This node and all below, each before what it holds."""
        stack: list[Node] = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children))

    def leaves(self) -> Iterator[Node]:
        """The nodes with an array, in the tree's order."""
        return (node for node in self.walk() if node.array is not None)


def outline(tree: Any, *, values: Mapping[str, Any] | None = None, prefix: str = "") -> Node:
    """The nodes of a tree.

    Args:
      tree: any pytree. A model is shown with its values in their places, and its paths are those that they
        have in a TrainState.
      values: what to put into the empty slots of a skeleton, by their keys; by default a model's own.
      prefix: what the paths of such values begin with, such as ``grads``.
    """
    if values is None and not isinstance(tree, TrainState) and _is_whole_model(tree):
        try:
            tree, params, model_state = models.split(tree)
        except ModelError:
            return folded(_Walk({}).node("", "", tree))
        places = {key: (f"params/{key}", value) for key, value in params.items()}
        places |= {key: (f"model_state/{key}", value) for key, value in model_state.items()}
        return folded(_Walk(places).node("", "", tree))
    join = f"{prefix}/" if prefix else ""
    places = {key: (join + key, value) for key, value in (values or {}).items()}
    return folded(_Walk(places, constants=values is None).node("", "", tree))


def folded(node: Node) -> Node:
    """The outline with each node that holds but one other put into one line with it.

    ``delta`` that holds ``sublayers`` alone is ``delta/sublayers``.
    """
    node.children = [_with_only_child(folded(child)) for child in node.children]
    return node


def _with_only_child(node: Node) -> Node:
    if len(node.children) != 1 or node.later or node.apart:
        return node
    (child,) = node.children
    is_plain = child.word in ("list", "tuple", "dict", "")
    word, note = (node.word, node.note) if is_plain and node.word else (child.word, child.note)
    if not child.children:
        innermost = child.note.split(" ")[0] in ("", *_VARIABLES) and node.word not in (
            "list",
            "tuple",
            "dict",
        )
        word, note = child.word, node.word if innermost else child.note
    # penzai keeps what stands one after another in a list called sublayers; it says nothing
    name = child.name.removeprefix("sublayers/") if child.word in ("list", word) else child.name
    name = node.name if name == "sublayers" else f"{node.name}/{name}"
    return dataclasses.replace(child, name=name, word=word, note=note)


def _is_whole_model(tree: Any) -> bool:
    if isinstance(tree, (dict, list, tuple)) or paths.is_arraylike(tree):
        return False
    try:
        return models.is_model(tree)
    except Exception:  # a stranger's flatten may raise anything
        return False


def describe(value: Any) -> str:
    """What a leaf is, in a word: dtype and shape of an array, else a short repr."""
    try:
        if paths.is_arraylike(value):
            return printable(paths.describe(value), 120)
        if isinstance(value, (bool, int, float, complex, str, bytes, type(None))):
            return printable(_short.repr(value), 80)
        if isinstance(value, type) or callable(value):
            return printable(getattr(value, "__qualname__", type(value).__name__), 80)
        return printable(_short.repr(value), 80)
    except Exception as error:
        return printable(f"{type(value).__name__} whose repr raised {type(error).__name__}", 80)


@functools.cache
def _name_of(dtype: Any) -> str:
    return str(dtype)


class _Walk:
    """A walk through a tree.

    Args:
      places: path and array by the key of a slot; a slot of several arrays has them below its key.
      constants: whether arrays that are in no slot are measured.
    """

    def __init__(self, places: Mapping[str, tuple[str, Any]], *, constants: bool = True):
        self._places, self._constants = places, constants
        self._order: dict[str, int] = {}
        self._below: dict[str, list[str]] = {}
        for key in places:
            for end in range(len(key)):
                if key[end] == "/":
                    self._below.setdefault(key[:end], []).append(key)

    def node(self, name: str, path: str, value: Any, depth: int = 0) -> Node:
        """The node of a value."""
        if isinstance(value, _SLOTS):
            return self._slot(name, path, value)
        if isinstance(value, (pz.Parameter, pz.StateVariable, pz.ParameterValue)):
            return self._variable(name, path, value, depth)
        if paths.is_arraylike(value):
            if not self._constants:
                return Node(name, path, describe(value))
            return Node(name, path, "", array=value)  # its word comes with what is measured
        pairs = None if value is None else self._inside(value)
        if pairs is None:
            return Node(name, path, describe(value))
        node = Node(name, path, printable(type(value).__name__, 60), note=_static(value, pairs))
        is_record = isinstance(value, (TrainState, Context))
        if depth >= DEEPEST:
            node.note = "what is deeper is not shown"
            return node
        for key, child in pairs:
            inside = self.node(key, f"{path}/{key}" if path else key, child, depth + 1)
            inside.apart |= is_record or (isinstance(value, pz.nn.Layer) and inside.array is child)
            inside.later = is_record and key in _LATER
            node.children.append(inside)
        if isinstance(value, Mapping):
            node.children = _grouped(node.children, path)
        if self._places:
            node.path = ""  # a layer is no key of a Context, only its parameters are
        return node

    def _inside(self, value: Any) -> list[tuple[str, Any]] | None:
        """Keys and children of a node; None for a leaf. Parameters come in the order of the model."""
        if isinstance(value, TrainState) and models.is_model(value.model_without_params):
            order = models.parameter_order(value.model_without_params)
            self._order = {key: place for place, key in enumerate(order)}
        elif isinstance(value, Context) and isinstance(value.__dict__.get("params"), dict):
            self._order = {key: place for place, key in enumerate(value.params)}
        pairs = _inside(value)
        if pairs and isinstance(value, Mapping) and pairs[0][0] in self._order:
            pairs.sort(key=lambda pair: self._order.get(pair[0], len(self._order)))
        return pairs

    def _slot(self, name: str, path: str, slot: Any) -> Node:
        """An empty place, or what belongs there."""
        kind, key = type(slot).__name__.removesuffix("Slot"), str(getattr(slot, "key", ""))
        word = printable(str(slot.description), 120)
        if key in self._places:
            where, array = self._places[key]
            same_dtype = word.split("[")[0] == _name_of(array.dtype)
            return Node(name, where, word if same_dtype else "", array=array, note=kind)
        if key in self._below:
            node = Node(name, path, kind)
            for inner in self._below[key]:
                where, array = self._places[inner]
                node.children.append(Node(inner[len(key) + 1 :], where, "", array=array))
            return node
        return Node(name, path, word, note="empty slot")

    def _variable(self, name: str, path: str, variable: Any, depth: int) -> Node:
        """A penzai variable with its value in it."""
        node = self.node(name, path, variable.value, depth + 1)
        label = getattr(variable, "label", None)
        node.note = (
            f"{type(variable).__name__} {label}" if isinstance(label, str) else type(variable).__name__
        )
        return node


def _inside(value: Any) -> list[tuple[str, Any]] | None:
    """Keys and children of a node; None for a leaf."""
    if isinstance(value, Mapping):
        return [(str(key), child) for key, child in value.items()]
    if isinstance(value, TrainState):
        names = [field.name for field in dataclasses.fields(value) if field.name != "optimizer_def"]
        return [(name, getattr(value, name)) for name in names]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        names: Any = getattr(value, "_fields", ())
        return list(zip(names, value, strict=True))
    if isinstance(value, (list, tuple)):
        return [(str(index), child) for index, child in enumerate(value)]
    try:
        found = jax.tree_util.tree_flatten_with_path(value, is_leaf=lambda node: node is not value)[0]
    except Exception:  # a stranger's flatten may raise anything
        return None
    if len(found) == 1 and not found[0][0]:
        return None
    return [(paths.path_string(keys), child) for keys, child in found]


def _static(value: Any, pairs: list[tuple[str, Any]]) -> str:
    """What a node holds beside its children, in a few words."""
    if isinstance(value, TrainState):
        return name_optimizer(value.optimizer_def)
    if isinstance(value, (Mapping, list)) or (isinstance(value, tuple) and not hasattr(value, "_fields")):
        return f"of {len(pairs):,}"
    if not dataclasses.is_dataclass(value):
        return ""
    children = {name for name, _ in pairs}
    rest = [field.name for field in dataclasses.fields(value) if field.name not in children and field.repr]
    held = {name: getattr(value, name, None) for name in rest}
    simple = {name: one for name, one in held.items() if isinstance(one, _SIMPLE) and one not in ((), "")}
    return printable(", ".join(f"{name}={describe(one)}" for name, one in simple.items()), 50)


def _grouped(children: list[Node], path: str) -> list[Node]:
    """Children whose names are paths themselves, put into groups by what stands before each ``/``.

    A group's path is a pattern, since nothing but its leaves can be looked up.
    """
    if not any("/" in child.name for child in children):
        return children
    groups: dict[str, list[Node]] = {}
    for child in children:
        first, slash, rest = child.name.partition("/")
        if slash and first and rest:
            groups.setdefault(f"{first}/", []).append(dataclasses.replace(child, name=rest))
        else:
            groups.setdefault(f"={child.name}", []).append(child)
    made: list[Node] = []
    for key, members in groups.items():
        if key[0] == "=":
            made += members
            continue
        below = f"{path}/{key}" if path else key
        inside = _grouped(members, below[:-1])
        if len(inside) == 1:  # a group of one is its member, under the longer name
            made.append(dataclasses.replace(inside[0], name=key + inside[0].name))
        else:
            made.append(Node(key[:-1], f"{below}**", "", inside))
    return made
