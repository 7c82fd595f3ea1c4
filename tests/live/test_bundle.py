"""The committed front end is what its sources build."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

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


def digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def sources(frontend: Path) -> list[str]:
    """Everything that the front end is built from, the versions of what npm brings included."""
    own = ["build.mjs", "package-lock.json", "package.json"]
    return sorted([*own, *(f"src/{path.name}" for path in (frontend / "src").iterdir())])


def outdated(frontend: Path, static: Path) -> list[str]:
    """The files that are not those of the last build."""
    built = json.loads((frontend / "built.json").read_text())
    found = {"sources": digests(frontend, sources(frontend)), "static": digests(static, NAMES)}
    return [
        name
        for kind in ("sources", "static")
        for name in sorted({*found[kind], *built[kind]})
        if found[kind].get(name) != built[kind].get(name)
    ]


def test_it_was_built_from_these_sources():
    """`.ci/frontend` builds it again, with npm, and compares all bytes."""
    assert outdated(LIVE / "frontend", LIVE / "static") == [], "cd toolshed/live/frontend && npm run build"


def test_a_changed_a_new_and_a_missing_source_are_seen_and_a_bundle_changed_by_hand(tmp_path):
    frontend, static = tmp_path / "frontend", tmp_path / "static"
    shutil.copytree(LIVE / "frontend", frontend, ignore=shutil.ignore_patterns("node_modules"))
    shutil.copytree(LIVE / "static", static)
    assert outdated(frontend, static) == []
    with (frontend / "src" / "index.js").open("a") as file:
        file.write(" ")
    (frontend / "src" / "new.js").touch()
    (frontend / "src" / "zoom.js").unlink()
    with (static / "dashboard.css").open("a") as file:
        file.write(" ")
    assert outdated(frontend, static) == ["src/index.js", "src/new.js", "src/zoom.js", "dashboard.css"]
