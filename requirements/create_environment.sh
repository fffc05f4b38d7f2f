#!/usr/bin/env bash
# Create or reuse .venv in the repository root with the locked CPU environment. Nothing happens when it is up to date.
# usage: requirements/create_environment.sh
# The lock leaves torch out, so that the CPU build of the pinned version is found wherever pip is told to look for it
# (PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS); without such a place pip takes the public build, which brings CUDA libraries.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
torch=2.13.0
stamp=.venv/created_from
wanted=$(cat requirements/cpu.lock requirements/create_environment.sh verl_cpu/vllm_metadata/pyproject.toml pyproject.toml | sha256sum | cut -d' ' -f1)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
  exit 0
fi
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = gpu ]; then
  echo "error: .venv holds the GPU environment; remove it to have the CPU one" >&2
  exit 2
fi
"$python" -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 13) else f"error: Python 3.11 or 3.12 is needed, found {v[0]}.{v[1]}: set PYTHON")'
rm -f "$stamp"
echo "environment: creating .venv (about 2 GB, a few minutes on the first run)"
[ -x .venv/bin/python ] || "$python" -m venv .venv
pip=(.venv/bin/python -m pip install --quiet --disable-pip-version-check)
"${pip[@]}" --no-deps --require-hashes -r <(awk '/^uv==/ {keep = 1} keep {print} keep && !/\\$/ {exit}' requirements/cpu.lock)
"${pip[@]}" "torch==$torch" # builds differ by the place they come from: no hash fits them all
# Compiled now: else a dozen worker processes compile the same files at once when the first training starts.
.venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python --no-deps --require-hashes -r requirements/cpu.lock
# torch's compiler back end for GPUs: a gigabyte nothing here uses.
.venv/bin/uv pip uninstall --quiet --python .venv/bin/python triton 2>/dev/null || true
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps ./verl_cpu/vllm_metadata --editable .
echo "$wanted" >"$stamp"
echo "environment: ready"
