"""`export.serve` in front of the loopback model server in place of vLLM; its options are the same."""

from __future__ import annotations

from benchmarks.rewriter_service_runs.loopback_model import launch
from export.serve import main

if __name__ == "__main__":
    raise SystemExit(main(launch=launch))
