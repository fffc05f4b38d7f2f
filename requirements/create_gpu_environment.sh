#!/usr/bin/env bash
# Create .venv in the repository root with the locked environment for NVIDIA GPUs (CUDA toolkit and compiler needed).
# Replaces a CPU environment that stands there. usage: requirements/create_gpu_environment.sh
set -euo pipefail
cd "$(dirname "$0")/.."
"${PYTHON:-python3.11}" -m venv --clear .venv
.venv/bin/python -m pip install --quiet "$(grep -oE '^uv==[^ ]+' requirements/cpu.lock)" wheel
uv=(.venv/bin/uv pip install --python .venv/bin/python --no-deps)
# flash-attn compiles against the installed torch: everything else first, then flash-attn without build isolation.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
awk '/^[a-zA-Z0-9]/ {keep = !/^flash-attn==/} keep' requirements/gpu.lock >"$work/rest.lock"
awk '/^[a-zA-Z0-9]/ {keep = /^flash-attn==/} keep' requirements/gpu.lock >"$work/flash-attn.lock"
"${uv[@]}" --require-hashes -r "$work/rest.lock"
"${uv[@]}" --require-hashes --no-build-isolation -r "$work/flash-attn.lock"
"${uv[@]}" --editable .
echo gpu >.venv/created_from
