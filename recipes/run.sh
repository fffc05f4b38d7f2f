#!/usr/bin/env bash
# Run one recipe: check it, train, merge the last checkpoint into <output>/final (recipes/launch.py, recipes/README.md).
# usage: recipes/run.sh RECIPE tenant=NAME [hydra overrides]     e.g. recipes/run.sh grpo tenant=fivedoctors machine=cpu
root=$(cd "$(dirname "$0")/.." && pwd)
python=$root/.venv/bin/python
[ -x "$python" ] || python=$(command -v python3)
exec "$python" -m recipes.launch "$@"
