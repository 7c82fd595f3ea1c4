"""What importing toolshed loads, who may import whom, and that every public name explains itself."""

from __future__ import annotations

import doctest
import functools
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import toolshed

ROOT = Path(__file__).parent.parent
LINT_IMPORTS = Path(sys.executable).parent / "lint-imports"
HEAVY = (
    "matplotlib", "sklearn", "orbax", "ipywidgets", "anywidget", "jupyterlab",
    "pydoc_data.topics", "penzai.deprecated.v1", "torch", "torchdata", "tensorflow", "grain", "datasets",
    "wandb", "mlflow", "trackio", "tensorboard",
)  # fmt: skip
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(toolshed.__path__, "toolshed.")
    if not module.name.endswith("__main__")  # importing it runs the command
)
PACKAGES = ["toolshed", *(name for name in MODULES if hasattr(importlib.import_module(name), "__path__"))]


LIFE = {
    "toolshed was imported": "import toolshed, toolshed.cli",
    "something was read": "assert list(toolshed.data.stream([1])) == [1]",
    "a model was split": """
import numpy
from penzai import pz
parameter = pz.Parameter(value=numpy.ones(2), label="w")
assert list(toolshed.models.split([parameter]).params) == ["w"]
assert not toolshed.models.is_model({})
""",
    "data were loaded": "toolshed.data.python_topics(); toolshed.data.digits()",
    "the deprecated package was imported": "import penzai.deprecated.v1.pz",
}
"""What one Python does, a piece after another."""


@functools.cache
def loaded_after() -> dict[str, set[str]]:
    """Which of the heavy packages a fresh Python has loaded after each piece of its life."""
    report = f"print(*[name for name in {HEAVY!r} if name in sys.modules])\n"
    code = "import sys\n" + "".join(f"{piece}\n{report}" for piece in LIFE.values())
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    return dict(zip(LIFE, map(set, map(str.split, done.stdout.splitlines())), strict=True))


def test_importing_toolshed_loads_nothing_heavy_that_it_does_not_need():
    assert loaded_after()["toolshed was imported"] == set()


def test_reading_what_a_package_gives_imports_no_package():
    assert loaded_after()["something was read"] == set()


def test_the_deprecated_package_is_not_imported_for_models_that_do_not_need_it():
    assert loaded_after()["a model was split"] == set()
    assert "penzai.deprecated.v1" in loaded_after()["the deprecated package was imported"]


def test_what_is_heavy_is_loaded_where_it_is_used():
    assert loaded_after()["data were loaded"] == {"pydoc_data.topics", "sklearn"}


# --- layers -----------------------------------------------------------------------------------------


def lint(*options: str, where: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([LINT_IMPORTS, "--no-cache", *options], cwd=where, capture_output=True, text=True)


def test_modules_import_only_from_the_layers_below_their_own():
    done = lint()
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_every_module_is_in_a_layer():
    configuration = (ROOT / "pyproject.toml").read_text()
    layers = configuration.split("layers = [")[1].split("]")[0]
    for name in MODULES:
        top = ".".join(name.split(".")[:2])
        assert f"{top}" in layers.replace('"', " ").split(), f"{top} is in no layer of pyproject.toml"


def test_an_import_from_a_layer_above_would_be_found(tmp_path):
    upside_down = tmp_path / "contracts.ini"
    upside_down.write_text(
        "[importlinter]\nroot_package = toolshed\n\n[importlinter:contract:1]\nname = upside down\n"
        "type = layers\nlayers =\n    toolshed.state\n    toolshed.training\n"
    )
    done = lint("--config", str(upside_down))
    assert done.returncode == 1
    assert "toolshed.training.step -> toolshed.state" in done.stdout


# --- documentation ----------------------------------------------------------------------------------


def public_names(package: str) -> dict[str, Any]:
    module = importlib.import_module(package)
    hook = "jaxtyping"  # what checks the annotations in these tests leaves its name behind
    return {name: value for name, value in vars(module).items() if name[0] != "_" and name != hook}


def has_docstring(value: Any) -> bool:
    text = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    made_by_dataclass = inspect.isclass(value) and (text or "").startswith(f"{value.__name__}(")
    return bool((text or "").strip()) and not made_by_dataclass


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_of_a_package_has_a_docstring(package):
    documented = [
        (name, value)
        for name, value in public_names(package).items()
        if inspect.ismodule(value) or inspect.isclass(value) or inspect.isfunction(value)
    ]
    assert documented
    assert [name for name, value in documented if not has_docstring(value)] == []


@pytest.mark.parametrize("module", ["toolshed", *MODULES])
def test_every_module_says_what_it_is_for(module):
    first_line = (importlib.import_module(module).__doc__ or "").splitlines()[0]
    assert first_line.endswith("."), first_line


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_offers_only_names_of_toolshed_s_own(package):
    """Nothing that a module imported for itself shows up when a person presses tab."""
    for name, value in public_names(package).items():
        origin = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", "toolshed")
        aliases = ("LossOfParams", "GradientStrategy", "Mapping", "Any", "annotations")
        assert origin.startswith("toolshed") or name in aliases, f"{package}.{name} is {origin}'s"


def test_the_doctests_are_found():
    finder = doctest.DocTestFinder()
    examples = [
        example
        for name in MODULES
        for test in finder.find(importlib.import_module(name), name)
        for example in test.examples
    ]
    assert len(examples) > 15


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_in_the_docstrings_are_true(module, capsys):
    result = doctest.testmod(importlib.import_module(module))
    assert result.failed == 0, capsys.readouterr().out
