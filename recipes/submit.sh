#!/usr/bin/env bash
# Run one recipe on a Ray cluster that exists: sources, settings and keys go along, the log comes back (recipes/submit.py).
# usage: recipes/submit.sh --address http://HEAD:8265 RECIPE tenant=NAME [hydra overrides]
root=$(cd "$(dirname "$0")/.." && pwd)
python=$root/.venv/bin/python
[ -x "$python" ] || python=$(command -v python3)
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "$python" -m recipes.submit "$@"
