#!/usr/bin/env bash
# Set up the environment when it is missing or stale, then lint, check types and run tests on two cores.
#   tests/run.sh          unit and service tests and one short training run: at most five minutes after the set-up
#   tests/run.sh --all    the tests marked `full` too, and those that take a sample at their full size
#   tests/run.sh ARG ...  what pytest makes of its arguments, one test at a time, e.g. tests/run.sh -m slow
set -euo pipefail
cd "$(dirname "$0")/.."
bash requirements/create_environment.sh
bash requirements/install_chromium.sh # for the tests of the service's page
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# A file stays in one process: its tests share servers, models and indexes. One process more than cores, since many wait.
two_cores=(-n 3 --dist loadfile --no-loadscope-reorder)
case "${1:-}" in
"") set -- "${two_cores[@]}" -m "not full and not slow and not gpu" ;;
--all) set -- "${two_cores[@]}" --full -m "not slow and not gpu" "${@:2}" ;;
esac
exec .venv/bin/python -m pytest "$@"
