"""How toolshed's own values look in treescope: a line that says the essential, open for the rest.

Drawing a state costs no device work but what treescope itself does for the arrays that are unfolded.
All text goes through treescope's text parts, which escape it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from treescope import rendering_parts as parts
from treescope import type_registries

from toolshed import models
from toolshed.keys import is_key
from toolshed.models.penzai_v1 import ValueSlot
from toolshed.models.penzai_v2 import ParameterSlot, StateVariableSlot
from toolshed.state import TrainState, describe_optimizer, name_optimizer
from toolshed.training import Context
from toolshed.training.context import FIELDS

_FIELD_STYLE = "font-style: italic;"
_SLOT_STYLE = "opacity: 0.75;"


def count_and_bytes(tree: Any) -> tuple[int, int]:
    """Number of values and of bytes in all arrays of a tree; reads no array."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "size")]
    sizes = [int(leaf.size) * leaf.dtype.itemsize for leaf in leaves]
    return sum(int(leaf.size) for leaf in leaves), sum(sizes)


def format_bytes(number: int) -> str:
    """Bytes in the largest unit that leaves a number of at least 1: ``18.6 kB``."""
    if number < 1000:
        return f"{number} B"
    size, units = number / 1000, ["kB", "MB", "GB", "TB"]
    while round(size, 1) >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.1f} {units[0]}"


def summarize_state(state: TrainState) -> str:
    """One line on a state: ``step 3 · 2,410 parameters, 9.6 kB · scale_by_adam → scale``."""
    count, size = count_and_bytes(state.params)
    parameters = f"{count:,} parameter{'s' if count != 1 else ''}"
    optimizer = name_optimizer(state.optimizer_def)
    return f"step {_step(state.step)} · {parameters}, {format_bytes(size)} · {optimizer}"


def _step(step: Any) -> str:
    if isinstance(step, Tracer) or not hasattr(step, "__array__"):
        return str(step)
    if isinstance(step, jax.Array) and step.is_deleted():
        return "deleted"
    return f"{int(np.asarray(step)):,}" if np.ndim(step) == 0 else str(step)


def _node(
    name: str,
    summary: str,
    fields: dict[str, Any],
    *,
    color: str,
    path: str | None,
    render: Any,
    folded: bool,
) -> Any:
    """A node that is its summary when folded, ``Name(summary)``, and a line for each field when open.

    A field whose value is a part already (`_Drawn`) is taken as it is.
    """
    lines = []
    for field, value in fields.items():
        child_path = None if path is None else f"{path}.{field}"
        child = value.part(child_path) if isinstance(value, _Drawn) else render(value, path=child_path)
        label = parts.custom_style(parts.text(field), _FIELD_STYLE)
        line = parts.siblings_with_annotations(label, parts.text("="), child)
        lines.append(
            parts.fold_condition(expanded=parts.build_full_line_with_annotations(line, parts.text(",")))
        )
    return parts.build_foldable_tree_node_from_children(
        prefix=parts.siblings(parts.text(f"{name}("), parts.fold_condition(collapsed=parts.text(summary))),
        children=lines,
        suffix=")",
        path=path,
        background_color=color,
        first_line_annotation=parts.comment_color(parts.text(f" # {summary}")),
        expand_state=parts.ExpandState.COLLAPSED if folded else parts.ExpandState.WEAKLY_COLLAPSED,
    )


class _Drawn:
    """Words in the place of a value, in one line."""

    def __init__(self, words: str):
        self.words = words

    def part(self, path: str | None) -> Any:
        return parts.build_one_line_tree_node(parts.abbreviation_color(parts.text(self.words)), path=path)


def _draw_key(key: Any) -> Any:
    """A single typed key in one line; whatever else it is, as it is."""
    if not isinstance(key, jax.Array) or not is_key(key) or isinstance(key, Tracer):
        return key
    if key.ndim or key.is_deleted():
        return key
    bits = " ".join(map(str, np.asarray(jax.random.key_data(key))))
    return _Drawn(f"<key {jax.random.key_impl(key)} {bits}>")


def draw_state(node: TrainState, path: str | None, subtree_renderer: Any) -> Any:
    """A TrainState as its summary, its fields inside, parameters in the model's order."""
    fields = {field.name: getattr(node, field.name) for field in dataclasses.fields(node)}
    if models.is_model(node.model_without_params):
        fields["params"] = in_order(node.params, models.parameter_order(node.model_without_params))
    fields["optimizer_def"] = _Drawn(describe_optimizer(node.optimizer_def))
    fields["root_rng"] = _draw_key(node.root_rng)
    return _node(
        "TrainState",
        summarize_state(node),
        fields,
        color=node.treescope_color(),
        path=path,
        render=subtree_renderer,
        folded=True,
    )


def in_order(values: Any, order: list[str]) -> Any:
    """A dict with its keys in a given order, the others after them. jit sorts keys; people do not."""
    if not isinstance(values, dict):
        return values
    place = {key: position for position, key in enumerate(order)}

    def position(key: str) -> int:
        """That of the key itself, or of the parameter whose arrays it is one of."""
        while key not in place and "/" in key:
            key = key.rsplit("/", 1)[0]
        return place.get(key, len(place))

    return {key: values[key] for key in sorted(values, key=position)}


def draw_context(node: Context, path: str | None, subtree_renderer: Any) -> Any:
    """A Context as the step it is of, with the fields that are filled inside."""
    fields = {name: getattr(node, name) for name in node.filled}
    step = f"step {_step(node.step)}" if "step" in fields else "a step"
    summary = f"what {step} knew · {len(fields)} of {len(FIELDS)} fields"
    if "rng" in fields:
        fields["rng"] = _draw_key(node.rng)
    color = "#c9a66b"
    return _node("Context", summary, fields, color=color, path=path, render=subtree_renderer, folded=False)


def draw_slot(node: Any, path: str | None, subtree_renderer: Any) -> Any:
    """An empty slot in one line: what belongs there, in what shape."""
    del subtree_renderer
    label = f" {node.key!r}" if hasattr(node, "key") else ""
    line = parts.siblings(
        parts.text(type(node).__name__),
        parts.text(label),
        parts.comment_color(parts.text(f" {node.description}")),
    )
    return parts.build_one_line_tree_node(parts.custom_style(line, _SLOT_STYLE), path=path)


def register() -> None:
    """Tells treescope how to draw these types; the types themselves know nothing of it."""
    handlers = type_registries.TREESCOPE_HANDLER_REGISTRY
    handlers[TrainState] = draw_state
    handlers[Context] = draw_context
    for slot in (ParameterSlot, StateVariableSlot, ValueSlot):
        handlers[slot] = draw_slot
