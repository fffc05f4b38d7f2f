#!/usr/bin/env bash
# Resolve pyproject.toml into the hashed locks. torch stays out of the CPU lock: see create_environment.sh. The lock of the
# RAG service's image takes the versions of the CPU lock; the GPU lock is for the Python of the training image.
set -euo pipefail
cd "$(dirname "$0")/.."
compile=(.venv/bin/uv pip compile --quiet --generate-hashes --no-emit-find-links
  --no-emit-index-url --custom-compile-command "bash requirements/compile_locks.sh")
"${compile[@]}" pyproject.toml --python-version 3.11 --extra cpu --extra dev --extra demo --no-emit-package torch \
  --no-emit-package triton --no-emit-package setuptools -o requirements/cpu.lock
"${compile[@]}" pyproject.toml --python-version 3.11 --constraints requirements/cpu.lock -o requirements/rag.lock
"${compile[@]}" pyproject.toml --python-version 3.12 --extra gpu --python-platform x86_64-manylinux_2_28 -o requirements/gpu.lock
"${compile[@]}" requirements/sbom.in --python-version 3.11 -o requirements/sbom.lock
