"""What does the drop-in cost, and is an answer ever wrong or lost?

    python -m benchmarks.rewriter_service [--requests 1000] [--model DIR --tenant NAME]

Added latency: `--requests` requests, one after the other over a kept connection, go by turns to the model server itself
and to the drop-in in front of it; both give the same rewrites. Then 8 clients ask the drop-in while the model server is
killed and started again, three times: each answer must be the model's rewrite, or the original query with the reason in
its header. Anything else is wrong; no answer is lost.

The model server is a loopback one that answers at once, so that only the drop-in is measured. With `--model` it is the
vLLM that the drop-in starts. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from benchmarks.rewriter_service_runs.loopback_model import make_model
from benchmarks.rewriter_service_runs.runs import Kills, Latency, measure_kills, measure_latency, serving

TENANT, PREFIX = "fivedoctors", "改写 "


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rewriter_service", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--requests", type=int, default=1000, help="of each measurement (default %(default)s)")
    parser.add_argument("--model", type=Path, help="Hugging Face folder, served by vLLM (default: a loopback server)")
    parser.add_argument("--tenant", default=TENANT, help="of --model (default %(default)s)")
    parser.add_argument("--timeout", type=float, default=5.0, help="of the drop-in, in seconds (default %(default)s)")
    parser.add_argument("--kills", type=int, default=3, help="of the model server (default %(default)s)")
    args = parser.parse_args(argv)
    if min(args.requests, args.kills) < 1:
        parser.error("--requests, --kills: at least 1")
    console, said = Console(width=120), Console(stderr=True)
    with TemporaryDirectory(prefix="rewriter_service_") as folder:
        model = args.model or make_model(Path(folder, "model"), prefix=PREFIX, delay=0.002)
        vllm = args.model is not None
        with said.status("starting"), serving(model, args.tenant, Path(folder), args.timeout, vllm=vllm) as run:
            with said.status("one after the other"):
                latency = measure_latency(run, args.requests)
            with said.status("killed"):
                kills = measure_kills(run, args.requests, args.kills)
    console.print(_table(latency, kills))
    print(json.dumps(_metrics(latency, kills, vllm=vllm)))
    return 0


def _table(latency: Latency, kills: Kills) -> Table:
    table = Table("", "p50 ms", "p95 ms", "added, median of pairs", "its CPU ms", "other answers")
    table.title = f"{latency.requests} requests, one after the other"
    table.add_row("model server", f"{latency.plain[0]:.2f}", f"{latency.plain[1]:.2f}", "", "", "")
    times = (f"{latency.drop_in[0]:.2f}", f"{latency.drop_in[1]:.2f}", f"{latency.added:.2f}", f"{latency.cpu:.2f}")
    table.add_row("drop-in", *times, str(latency.different))
    table.caption = (
        f"{kills.kills} kills: {kills.requests} asked, {kills.rewritten} rewritten, {kills.original} original with a "
        f"reason, {kills.wrong} wrong, {kills.lost} lost"
    )
    return table


def _metrics(latency: Latency, kills: Kills, *, vllm: bool) -> dict[str, float | str]:
    return {
        "backend": "vllm" if vllm else "loopback",
        "requests": latency.requests,
        "plain_p50_ms": round(latency.plain[0], 2),
        "drop_in_p50_ms": round(latency.drop_in[0], 2),
        "added_p50_ms": round(latency.added, 2),
        "p50_difference_ms": round(latency.drop_in[0] - latency.plain[0], 2),
        "added_p95_ms": round(latency.drop_in[1] - latency.plain[1], 2),
        "drop_in_cpu_ms": round(latency.cpu, 2),
        "different_answers": latency.different,
        "original_answers": latency.original,
        "kills": kills.kills,
        "asked_during_kills": kills.requests,
        "rewritten": kills.rewritten,
        "original_with_reason": kills.original,
        "wrong": kills.wrong,
        "lost": kills.lost,
    }


if __name__ == "__main__":
    raise SystemExit(main())
