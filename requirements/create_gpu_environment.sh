#!/usr/bin/env bash
# Create .venv in the repository root with the locked environment for NVIDIA GPUs (CUDA toolkit and compiler needed).
# usage: requirements/create_gpu_environment.sh
set -euo pipefail
cd "$(dirname "$0")/.."
"${PYTHON:-python3.11}" -m venv .venv
.venv/bin/python -m pip install --quiet "$(grep -oE '^uv==[^ ]+' requirements/cpu.lock)"
uv=(.venv/bin/uv pip install --python .venv/bin/python --no-deps --require-hashes)
# flash-attn compiles against the installed torch: everything else first, then flash-attn without build isolation.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
awk '/^[a-zA-Z0-9]/ {keep = !/^flash-attn==/} keep' requirements/gpu.lock >"$work/rest.lock"
awk '/^[a-zA-Z0-9]/ {keep = /^flash-attn==/} keep' requirements/gpu.lock >"$work/flash-attn.lock"
"${uv[@]}" -r "$work/rest.lock"
"${uv[@]}" --no-build-isolation -r "$work/flash-attn.lock"
