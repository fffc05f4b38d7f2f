#!/usr/bin/env bash
# Resolve pyproject.toml into the hashed lock of the CPU environment. torch stays out: see create_environment.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/uv pip compile --quiet pyproject.toml --extra cpu --extra dev --python-version 3.11 --generate-hashes \
  --no-emit-package torch --no-emit-package triton --no-emit-package setuptools --no-emit-find-links \
  --no-emit-index-url --custom-compile-command "bash requirements/compile_locks.sh" -o requirements/cpu.lock
