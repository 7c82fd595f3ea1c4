#!/usr/bin/env bash
# Installs toolshed into .venv and opens JupyterLab on the first notebook.
# Options are passed on to JupyterLab: bash notebooks/start.sh --no-browser --port 9000
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/venv.sh
.venv/bin/pip install --quiet --editable '.[lab]'
exec .venv/bin/toolshed lab "$@"
