"""Where a run comes from is found out with git, or left out."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from toolshed.store.origin import code_version, machine


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_the_commit_is_known_and_whether_files_differ_from_it(tmp_path):
    git(tmp_path, "init", "-b", "trunk")
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert code_version(tmp_path) == {"commit": commit, "dirty": False, "branch": "trunk"}
    (tmp_path / "file").write_text("2")
    assert code_version(tmp_path)["dirty"]


def test_outside_of_a_repository_nothing_is_known(tmp_path):
    assert code_version(tmp_path) == {}
    assert code_version(tmp_path / "nowhere") == {}


def test_the_machine_is_json():
    found = machine(())
    assert json.loads(json.dumps(found)) == found
    assert set(found["versions"]) >= {"jax", "optax"}
