"""Models: taken apart into a skeleton and flat dicts of arrays, and put together again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolshed.errors import ModelError
from toolshed.models.adapter import Bound as Bound
from toolshed.models.adapter import ModelLibrary as ModelLibrary
from toolshed.models.adapter import Split as Split
from toolshed.models.penzai_v1 import PenzaiV1
from toolshed.models.penzai_v2 import PenzaiV2

_LIBRARIES: list[ModelLibrary] = [PenzaiV2(), PenzaiV1()]


def is_model(tree: Any) -> bool:
    """True if `split` knows what to do with ``tree``."""
    return any(library.recognises(tree) for library in _LIBRARIES)


def adapter_of(tree: Any) -> ModelLibrary:
    """The library that a model or a skeleton belongs to.

    Raises:
      ModelError: no known library made it.
    """
    for library in _LIBRARIES:
        if library.recognises(tree):
            return library
    names = ", ".join(library.name for library in _LIBRARIES)
    raise ModelError(
        f"Expected a model of one of the libraries {names}; got {type(tree).__name__}, which holds none"
        " of their layers or parameters."
    )


def split(model: Any) -> Split:
    """Takes a model apart; see `Split`. The model that was passed in stays as it is.

    Raises:
      ModelError: the model is of no known library, labels clash, or a parameter holds no array.
    """
    return adapter_of(model).split(model)


def bind(skeleton: Any, params: Mapping[str, Any], model_state: Mapping[str, Any]) -> Any:
    """The whole model again: the inverse of `split`.

    Raises:
      ModelError: a value is missing.
    """
    return adapter_of(skeleton).bind(skeleton, params, model_state, frozen=False).model


def parameter_order(skeleton: Any) -> list[str]:
    """The keys of the parameters in the order in which they stand in the model, which jit forgets."""
    return adapter_of(skeleton).parameter_order(skeleton)


def evaluation_mode(model: Any) -> Any:
    """The same model, or skeleton, without the randomness of training (dropout layers do nothing)."""
    return adapter_of(model).evaluation_mode(model)
