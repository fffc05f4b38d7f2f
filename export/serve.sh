#!/usr/bin/env bash
# Serve rewrites where the deployed 32B did: POST /api/rewrite_query on port 7861 (docs/release.md).
# usage: export/serve.sh --tenant NAME --model DIR | --tenant NAME --registry DIR | --settings FILE
root=$(cd "$(dirname "$0")/.." && pwd)
python=$root/.venv/bin/python
[ -x "$python" ] || python=$(command -v python3)
exec "$python" -m export.serve "$@"
