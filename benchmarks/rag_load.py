"""How fast is retrieval, alone and through HTTP, beside the same put together by hand; and does the service last?

    python -m benchmarks.rag_load [--passages 100000] [--tenants 20] [--minutes 10] [--queries 2000] [--seed 0]
                                [--retriever keyword]

Synthetic Chinese passages, spread evenly over the tenants, are indexed by the build command's code and, beside it, by
hand: bm25s over the same tokens and, where the retriever makes vectors, faiss (flat, inner product) over the same ones
for each tenant, in memory, fused by scores. Then 1, 10 and 50 clients ask questions, each its next one when its last
one is answered: by hand (a thread a client), of the engine in process, and of `rag.serve` in a process of its own over
HTTP with kept connections from client processes. No question is asked twice of one system.

At last 8 clients read through HTTP for some minutes while one more adds, finds, replaces and deletes documents, and one
tenant's index is built anew. Anything but the right answer is an error. `rss_slope_mb_per_minute` is fitted to the
server's resident memory in the last two thirds of that time. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.rag_load_runs.runs import CLIENTS, Load, Run, run_by_hand, run_engine
from benchmarks.rag_load_runs.service import Mix, load_http, mix_http, serving
from benchmarks.rag_load_runs.texts import SyntheticText
from rag.models.embedder import DEFAULT_RETRIEVER

SYSTEMS = ("by hand", "engine, in process", "service, over HTTP")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rag_load", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--passages", type=int, default=100_000, help="of all tenants together (default %(default)s)")
    parser.add_argument("--tenants", type=int, default=20, help="default %(default)s")
    parser.add_argument("--minutes", type=float, default=10.0, help="of mixed reads and writes (default %(default)s)")
    parser.add_argument("--queries", type=int, default=2000, help="of each measurement (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of everything generated (default %(default)s)")
    parser.add_argument("--retriever", default=DEFAULT_RETRIEVER, help="as rag.serve takes it (default %(default)s)")
    args = parser.parse_args(argv)
    each = args.passages // max(args.tenants, 1)
    if min(args.tenants, args.queries) < 1 or each < 1 or args.minutes <= 0:
        parser.error("--passages, --tenants, --queries, --minutes: at least one passage a tenant, the others above 0")
    texts = SyntheticText(args.seed)
    tenants = [f"tenant{number:03d}" for number in range(args.tenants)]
    # Asked twice, a question would be answered from a cache.
    asked = [list(texts.questions(tenants, each, args.queries, start)) for start in range(len(CLIENTS))]
    console = Console(width=120)
    said = Console(stderr=True)
    # Each system answers the same questions, one system after the other on a quiet machine.
    with TemporaryDirectory(prefix="rag_load_") as folder:
        sources, data = Path(folder, "sources"), Path(folder, "data")
        _write_sources(sources, texts, tenants, each)
        with said.status("by hand"):
            hand = _in_process(run_by_hand, args.seed, tenants, each, asked, args.retriever)
        with said.status("the engine, alone"):
            engine = _in_process(run_engine, sources, data, tenants, asked, args.retriever)
        with said.status("the service"), serving(data, "--retriever", args.retriever) as server:
            http = [load_http(server.url, *one) for one in zip(asked, CLIENTS, strict=True)]
            mix = mix_http(server, tenants, each, args.minutes * 60, args.seed)
    # Speed counts only if both find the same.
    agreed = mean(
        len(set(ours) & set(theirs)) / len(ours) for ours, theirs in zip(engine.found, hand.found, strict=True)
    )
    console.print(
        _load_table(
            [hand.loads, engine.loads, http], f"{args.passages:,} passages, {args.tenants} tenants, {args.retriever}"
        )
    )
    console.print(
        f"build: {engine.build_seconds:.1f} s, by hand {hand.build_seconds:.1f} s; hits in common: {agreed:.1%}"
    )
    console.print(_mix_line(mix))
    for error in mix.errors[:20]:
        console.print(f"error: {error}", markup=False)
    metrics: dict[str, float] = {
        "build_seconds": engine.build_seconds,
        "build_by_hand_over_build": hand.build_seconds / engine.build_seconds,
        "hits_in_common": agreed,
    }
    for clients, by_hand, alone, served in zip(CLIENTS, hand.loads, engine.loads, http, strict=True):
        metrics |= {
            f"engine_qps_over_by_hand_{clients}": alone.qps / by_hand.qps,
            f"by_hand_p50_over_engine_{clients}": by_hand.percentile(50) / alone.percentile(50),
            f"engine_p50_ms_{clients}": alone.percentile(50),
            f"http_qps_{clients}": served.qps,
            f"http_p99_ms_{clients}": served.percentile(99),
            f"http_adds_p50_ms_{clients}": served.percentile(50) - alone.percentile(50),
        }
    metrics |= {
        "errors": len(mix.errors) + sum(load.errors for load in http),
        "mixed_searches": mix.searches,
        "mixed_writes": mix.writes,
        "rebuilds": mix.rebuilds,
        "rss_mb": mix.rss_mb,
        "rss_slope_mb_per_minute": mix.rss_slope,
    }
    print(json.dumps({name: round(value, 4) for name, value in metrics.items()}))
    return 0


def _write_sources(sources: Path, texts: SyntheticText, tenants: Sequence[str], passages: int) -> None:
    for tenant in tenants:
        (sources / tenant).mkdir(parents=True)
        rows = (
            json.dumps({"_id": str(n), "text": texts.passage(tenant, n)}, ensure_ascii=False) for n in range(passages)
        )
        (sources / tenant / "corpus.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


def _in_process(run: Callable[..., Run], *arguments: Any) -> Run:
    """Call `run` in a fresh process: what one system leaves in memory slows no other."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(run, *arguments).result()


def _load_table(loads: Sequence[Sequence[Load]], title: str) -> Table:
    table = Table(title=title, title_justify="left", caption="p50 / p99 milliseconds, answers a second")
    table.add_column("system")
    for clients in CLIENTS:
        table.add_column(f"{clients} client{'s' * (clients > 1)}", justify="right")
    for system, of_system in zip(SYSTEMS, loads, strict=True):
        cells = [f"{one.percentile(50):.2f} / {one.percentile(99):.2f}, {one.qps:,.0f}" for one in of_system]
        table.add_row(system, *cells)
    return table


def _mix_line(mix: Mix) -> str:
    return (
        f"{mix.seconds / 60:.1f} minutes: {mix.searches:,} searches (p50 {mix.p50:.1f} ms, p99 {mix.p99:.1f} ms), "
        f"{mix.writes:,} writes (p50 {mix.write_p50:.1f} ms), {mix.rebuilds} rebuilds, {len(mix.errors)} errors; "
        f"server {mix.rss_mb:.0f} MB, {mix.rss_slope:+.2f} MB a minute"
    )


if __name__ == "__main__":
    raise SystemExit(main())
