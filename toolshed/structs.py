"""penzai's Struct decorator with a type that checkers can follow.

``pz.pytree_dataclass`` is annotated as returning a class or a decorator, which makes every decorated
class unknown to a type checker. At run time this is penzai's own decorator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from penzai import pz

if TYPE_CHECKING:
    from typing import dataclass_transform

    C = TypeVar("C", bound=type)

    @dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
    def struct(**options: Any) -> Callable[[C], C]:
        """Makes a class a frozen dataclass and a jax pytree; the options are penzai's."""
        ...
else:
    struct = pz.pytree_dataclass

STATIC: dict[str, bool] = {"pytree_node": False}
"""Metadata of a dataclass field that is part of a Struct's type, not one of its children."""
