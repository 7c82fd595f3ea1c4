#!/usr/bin/env bash
# Installs everything that the tests need into .venv, a Chromium included, and runs them all.
# Arguments are passed on to pytest: bash tests/run.sh tests/state -x
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/venv.sh
.venv/bin/pip install --quiet uv
.venv/bin/uv pip install --quiet --python .venv/bin/python --editable '.[test]'
# Playwright's driver needs a library that small Debian and Ubuntu systems lack.
if command -v apt-get >/dev/null && ! /sbin/ldconfig -p | grep -q libatomic.so.1; then
    apt_install libatomic1
fi
if ! command -v chromium >/dev/null; then
    # Ubuntu's chromium package is a stub for its store, so there Playwright brings its own.
    if grep -q '^ID=debian' /etc/os-release 2>/dev/null; then
        apt_install chromium
    else
        as_root "$PWD/.venv/bin/playwright" install-deps chromium
        .venv/bin/playwright install chromium
    fi
fi
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/pyright --pythonpath .venv/bin/python
.venv/bin/lint-imports --no-cache
exec .venv/bin/pytest -n 2 "$@"
