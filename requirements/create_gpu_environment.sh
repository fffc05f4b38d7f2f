#!/usr/bin/env bash
# Create .venv in the repository root with the locked environment for NVIDIA GPUs: Python 3.12, CUDA toolkit 13.0, a compiler.
# Replaces a CPU environment that is there. usage: requirements/create_gpu_environment.sh
# flash-attn is compiled from its hashed source; its build reads
#   MAX_JOBS               parallel compilers, each with up to 8 GB of memory (default 8)
#   FLASH_ATTN_CUDA_ARCHS  80: A100, RTX 30, RTX 40, L40; 90: H100, H200; 100: B200; 120: RTX 50 (default "80;90")
#   FLASH_ATTN_WHEEL       a wheel instead, URL#sha256=…, of flash-attn 2.8.3 for CUDA 13, torch 2.11 and Python 3.12
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3.12}
"$python" -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v == (3, 12) else f"error: gpu.lock is for Python 3.12, found {v[0]}.{v[1]}: set PYTHON")'
wheel=${FLASH_ATTN_WHEEL:-}
case $wheel in
"" | *"#sha256="*) ;;
*) echo "error: FLASH_ATTN_WHEEL needs #sha256=… at its end" >&2; exit 2 ;;
esac
"$python" -m venv --clear .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
  -r <(awk '/^uv==/ {keep = 1} keep {print} keep && !/\\$/ {exit}' requirements/cpu.lock)
install=(.venv/bin/uv pip install --python .venv/bin/python --no-deps)
# flash-attn compiles against the installed torch: everything else first, then flash-attn without build isolation.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
awk '/^[a-zA-Z0-9]/ {keep = !/^flash-attn==/} keep' requirements/gpu.lock >"$work/rest.lock"
awk '/^[a-zA-Z0-9]/ {keep = /^flash-attn==/} keep' requirements/gpu.lock >"$work/flash-attn.lock"
"${install[@]}" --compile-bytecode --require-hashes -r "$work/rest.lock"
if [ -n "$wheel" ]; then
  "${install[@]}" "flash-attn @ $wheel"
else
  # Its build otherwise looks for a wheel on the web first, which no hash protects.
  export FLASH_ATTENTION_FORCE_BUILD=TRUE MAX_JOBS=${MAX_JOBS:-8} FLASH_ATTN_CUDA_ARCHS=${FLASH_ATTN_CUDA_ARCHS:-"80;90"}
  "${install[@]}" --require-hashes --no-build-isolation -r "$work/flash-attn.lock"
fi
# An image copies the sources after this layer and finds them through PYTHONPATH.
if [ -f pyproject.toml ]; then
  "${install[@]}" --editable .
fi
echo gpu >.venv/created_from
