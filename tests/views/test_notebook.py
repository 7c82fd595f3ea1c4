"""How a notebook displays values while toolshed is enabled, and that it can be undone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell

import toolshed
from tests.zoo import ZOO
from toolshed.errors import ToolshedError, ViewWarning
from toolshed.views import notebook


@pytest.fixture
def shell() -> Iterator[Any]:
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    yield shell
    toolshed.disable()
    InteractiveShell.clear_instance()


class Own:
    """A value with a display of its own."""

    def _repr_html_(self) -> str:
        return "<b>own</b>"


def displayed(shell: Any, value: Any) -> dict[str, str]:
    return shell.display_formatter.format(value)[0]


def test_trees_of_arrays_are_shown_and_all_else_is_left_alone(shell: Any):
    toolshed.enable(shell)
    model = ZOO["mlp"]().model
    for value in ({"w": jnp.ones(2)}, [jnp.ones(2)], model, jnp.ones(3), ({"a": (jnp.ones(1),)},)):
        assert "toolshed-tree" in displayed(shell, value)["text/html"]
    for value in (3, "text", {"a": 1}, [1, 2], None, np.float32(1), object(), print):
        assert "text/html" not in displayed(shell, value)
    assert displayed(shell, Own())["text/html"] == "<b>own</b>"


def test_the_text_of_a_model_says_the_same_as_the_picture(shell: Any):
    toolshed.enable(shell)
    assert displayed(shell, ZOO["mlp"]().model)["text/plain"].startswith("MLP ")
    assert "4 B" in displayed(shell, jnp.ones(1))["text/plain"]


def test_disable_puts_everything_back(shell: Any):
    formatters = shell.display_formatter.formatters
    before = [dict(formatters[kind].type_printers) for kind in ("text/html", "text/plain")]
    toolshed.enable(shell)
    toolshed.enable(shell)
    toolshed.disable()
    toolshed.disable()
    assert [dict(formatters[kind].type_printers) for kind in ("text/html", "text/plain")] == before
    assert "text/html" not in displayed(shell, {"w": jnp.ones(2)})


def test_what_was_the_default_before_is_asked_for_what_is_no_tree(shell: Any):
    formatter = shell.display_formatter.formatters["text/html"]
    formatter.for_type(object, lambda value: f"before {value}")
    toolshed.enable(shell)
    assert displayed(shell, 3)["text/html"] == "before 3"
    assert "toolshed-tree" in displayed(shell, [jnp.ones(2)])["text/html"]
    toolshed.disable()
    assert displayed(shell, [3])["text/html"] == "before [3]"


def test_the_extension_enables_and_disables(shell: Any):
    shell.extension_manager.load_extension("toolshed")
    assert "toolshed-tree" in displayed(shell, [jnp.ones(2)])["text/html"]
    shell.extension_manager.unload_extension("toolshed")
    assert "text/html" not in displayed(shell, [jnp.ones(2)])


def test_a_tree_that_cannot_be_shown_is_a_warning_and_shown_as_before(shell: Any, monkeypatch: Any):
    def fail(tree: Any) -> Any:
        raise RuntimeError("no")

    monkeypatch.setattr(notebook, "show", fail)
    toolshed.enable(shell)
    with pytest.warns(ViewWarning, match="could not be shown as a tree: no"):
        assert "text/html" not in displayed(shell, [jnp.ones(2)])


def test_without_a_notebook_it_is_an_error():
    InteractiveShell.clear_instance()
    with pytest.raises(ToolshedError, match="There is no notebook here"):
        toolshed.enable()
