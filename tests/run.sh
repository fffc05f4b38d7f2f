#!/usr/bin/env bash
# Set up the environment when it is missing or stale, then lint, type-check and run the tests that need no GPU and no
# long CPU time. usage: tests/run.sh [pytest arguments]     e.g. tests/run.sh -m slow
set -euo pipefail
cd "$(dirname "$0")/.."
bash requirements/create_environment.sh
bash requirements/install_chromium.sh # for the tests of the service's page
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
if [ $# -eq 0 ]; then
  set -- -m "not slow and not gpu"
fi
exec .venv/bin/python -m pytest "$@"
