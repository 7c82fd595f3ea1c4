"""The committed front end is what its sources build."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import toolshed.live

LIVE = Path(toolshed.live.__file__).parent
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


@pytest.mark.skipif(shutil.which("npm") is None, reason="built where node is; nobody else needs it")
def test_building_it_again_gives_the_same_bytes(tmp_path):
    frontend = tmp_path / "frontend"
    shutil.copytree(LIVE / "frontend", frontend, ignore=shutil.ignore_patterns("node_modules"))
    environment = {**os.environ, "TOOLSHED_STATIC": str(tmp_path / "static")}
    for command in (["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], ["npm", "run", "build"]):
        done = subprocess.run(command, cwd=frontend, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    for name in NAMES:
        assert (tmp_path / "static" / name).read_bytes() == (LIVE / "static" / name).read_bytes(), name
