#!/usr/bin/env bash
# Resolve pyproject.toml into the two hashed locks. torch stays out of the CPU lock: see create_environment.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
compile=(.venv/bin/uv pip compile --quiet pyproject.toml --python-version 3.11 --generate-hashes --no-emit-find-links
  --no-emit-index-url --custom-compile-command "bash requirements/compile_locks.sh")
"${compile[@]}" --extra cpu --extra dev --no-emit-package torch --no-emit-package triton --no-emit-package setuptools \
  -o requirements/cpu.lock
"${compile[@]}" --extra gpu --python-platform x86_64-manylinux_2_28 -o requirements/gpu.lock
