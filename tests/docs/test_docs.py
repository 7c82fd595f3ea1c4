"""The documentation builds strictly, and every public name has its place in it."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ["toolshed", *(f"toolshed.{path.parent.name}" for path in ROOT.glob("toolshed/*/__init__.py"))]


def public_names(package: str) -> list[str]:
    """What the package's __init__ offers: the names that it imports as themselves or defines."""
    source = Path(importlib.import_module(package).__file__ or "").read_text()
    return re.findall(r"import (\w+) as \1", source) + re.findall(
        r"^(?:def|class) ([A-Za-z]\w*)", source, re.M
    )


def is_package(name: str) -> bool:
    """True for the subpackages that toolshed offers; each has a page of its own."""
    return (ROOT / "toolshed" / name).is_dir() or (ROOT / "toolshed" / f"{name}.py").exists()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; the notebooks are not executed here, as they have tests of their own."""
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", "docs/mkdocs.yml", "-d", str(folder)],
        cwd=ROOT,
        env={**os.environ, "TOOLSHED_DOCS_EXECUTE": "false", "NO_MKDOCS_2_WARNING": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    return folder


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_in_the_reference(site: Path, package: str):
    pages = "".join(page.read_text() for page in (site / "reference").rglob("index.html"))
    anchors = set(re.findall(r'id="([\w.]+)"', pages))
    assert "toolshed.TrainState" in anchors
    assert "toolshed.NoSuchName" not in anchors
    names = public_names(package)
    assert names
    # toolshed.training's names are documented under toolshed, where people import them from.
    undocumented = [name for name in names if not anchors & {f"{package}.{name}", f"toolshed.{name}"}]
    assert [name for name in undocumented if not (package == "toolshed" and is_package(name))] == []


def test_the_notebooks_and_the_readmes_commands_are_in_the_site(site: Path):
    assert "notebooks/start.sh" in (site / "index.html").read_text()
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert (site / "notebooks" / notebook.stem / "index.html").exists()
