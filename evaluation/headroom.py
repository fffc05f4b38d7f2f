"""Before anyone pays for training: how much can rewriting gain on this knowledge base and this retriever?

    python -m evaluation.headroom --test rl_test.jsonl --tenant fivedoctors --out outputs/headroom/fivedoctors \\
        --model policy=outputs/sft/fivedoctors/final
    python -m evaluation.headroom --synthesise --queries 200 --tenant fivedoctors --out outputs/headroom/fivedoctors

Every rewrite of every query is retrieved with, live, through each channel: the query itself, the deployed rewriter's
rewrites, draws of models, two rules, and subsets of the query's words chosen with the answer known. Writes
`headroom.json`, `headroom.md` and `examples.jsonl`; the answers lie in `ledger.sqlite`, so that the same command goes
on where an earlier run ended.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from data_prep.baseline.asking import run_until_stopped, with_options
from evaluation.headroom_study.asking import TOP_K
from evaluation.headroom_study.candidates import (
    Candidates,
    model_draws,
    original_queries,
    recorded_draws,
    rule_rewrites,
)
from evaluation.headroom_study.channels import CHANNELS
from evaluation.headroom_study.knowledge_base import describe, read_passages, served_passages
from evaluation.headroom_study.page import markdown_page, print_results
from evaluation.headroom_study.results import channel_results
from evaluation.headroom_study.study import Cost, Measured, ask_everything
from evaluation.headroom_study.synthetic import make_queries
from evaluation.headroom_study.verdict import verdict_of
from evaluation.headroom_study.words import Frequencies
from evaluation.options import parse_systems
from evaluation.slices import slice_members
from evaluation.systems import answer_limit, model_hash
from reward.records.commands import command
from reward.records.files import BadInput, file_sha256, write_atomically, write_json
from reward.records.sample import Sample, read_samples
from reward.settings.recipe import TenantSettings, load_tenant

RESULT_FILE, PAGE_FILE, EXAMPLES_FILE = "headroom.json", "headroom.md", "examples.jsonl"
LEDGER_FILE, QUERIES_FILE = "ledger.sqlite", "synthetic_queries.jsonl"
MOST_DRAWS = 64
SYNTHETIC = 200  # queries, where none are given

console = Console()


@dataclass(frozen=True, kw_only=True)
class HeadroomOptions:
    """What to study, with which rewrites, and at what cost at most.

    Args:
        test: samples (JSONL); None: queries are made from the knowledge base.
        kb: BEIR folder with the passages to make queries from; None: the service is asked for them.
        queries: that many at most, drawn with the seed; None: all of `test`, else `SYNTHETIC`.
        models: name → Hugging Face model folder, of which `n` rewrites a query are drawn at `temperature`.
        recorded: name → JSONL file or run folder with rewrites made elsewhere.
        n: draws of a query, up to `MOST_DRAWS`; `baseline_n`: of the deployed rewriter, asked live.
        subsets: of a query's words that the oracle asks about at most; 0: no oracle.
        max_calls: requests to the retrieval service.
    """

    tenant: str
    out: Path
    test: Path | None = None
    kb: Path | None = None
    queries: int | None = None
    rag_url: str | None = None
    channels: Sequence[str] = tuple(CHANNELS)
    models: Mapping[str, Path] = field(default_factory=dict)
    recorded: Mapping[str, Path] = field(default_factory=dict)
    n: int = 16
    baseline_n: int = 1
    temperature: float = 1.0
    max_new_tokens: int | None = None
    subsets: int = 64
    max_calls: int = 100_000
    seed: int = 0


@command
def main(argv: list[str] | None = None) -> int:
    options = _parse_args(argv)
    kept = f"the answers so far are in {options.out / LEDGER_FILE}"
    return run_until_stopped(lambda: print_results(console, measure_headroom(options), options.out), kept)


def measure_headroom(options: HeadroomOptions) -> dict[str, Any]:
    """Ask, choose, conclude, write. Returns what `headroom.json` holds.

    Raises:
        BadInput: an option or a file cannot be used, the service does not answer, no channel can be measured, no query
            was answered for every rewrite, or no rewrite of any query finds a relevant passage.
    """
    started = time.monotonic()
    given = load_tenant(options.tenant)
    tenant = given.model_copy(update={"rag": with_options(given.rag, {"url": options.rag_url})})
    models = {name: (folder, model_hash(folder)) for name, folder in options.models.items()}
    samples, unjudged = _samples(options, tenant)
    by_rank = all(sample.relevant_doc_ids for sample in samples)
    candidates = _candidates(samples, tenant, options)
    options.out.mkdir(parents=True, exist_ok=True)

    described = describe(tenant)
    subsets = options.subsets if by_rank else 0
    cost = Cost(baseline_n=options.baseline_n, subsets=subsets, max_calls=options.max_calls)
    study = asyncio.run(
        ask_everything(
            samples, candidates, tenant, options.channels, options.out / LEDGER_FILE, cost, described, console
        )
    )
    slices = slice_members(samples, tenant.language)
    channels = {
        name: channel_results(samples, measured, slices, by_rank=by_rank, seed=options.seed)
        for name, measured in study.measured.items()
    }
    if not any(part["n"] for part in channels.values()):
        reason, count = next(iter(next(iter(channels.values()))["left_out"].items()))
        raise BadInput(f"{tenant.rag.url}: no query could be compared; {count} of {len(samples)}: {reason}")
    if by_rank and not any(_is_reached(one) for rows in study.measured.values() for one in rows):
        raise BadInput(
            f"{tenant.rag.url}: no relevant passage is among {TOP_K} hits of anything that was asked: relevant_doc_ids "
            "are not ids of this knowledge base, or it does not hold them"
        )
    synthetic = options.test is None
    verdicts = {
        name: verdict_of(results, by_rank=by_rank, synthetic=synthetic)._asdict() for name, results in channels.items()
    }
    first = next(iter(channels))
    results = {
        "verdict": {"channel": first, **verdicts[first]},
        "metric": "mrr@10" if by_rank else "top1",
        "channels": {name: {**part, "verdict": verdicts[name]} for name, part in channels.items()},
        "not_measured": study.unmeasured,
        "calls": study.calls,
        "provenance": {
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "tenant": tenant.tenant_id,
            "queries": {
                "path": str(options.test or options.out / QUERIES_FILE),
                "sha256": file_sha256(options.test or options.out / QUERIES_FILE),
                "synthetic": synthetic,
                "used": len(samples),
                "without_relevant_passages": unjudged,
            },
            "models": {name: {"path": str(folder), "sha256": sha256} for name, (folder, sha256) in models.items()},
            "recorded": {name: str(path) for name, path in options.recorded.items()},
            "draws": {"n": options.n, "temperature": options.temperature, "baseline_n": options.baseline_n},
            "baseline_always_alike": candidates.same,
            "subsets": options.subsets,
            "retriever": {
                "fingerprint": study.fingerprint,
                "url": tenant.rag.url,
                "kb_name": tenant.rag.kb_name,
                "scorer": study.scorer,
                "described": described,
            },
            "seed": options.seed,
            "seconds": round(time.monotonic() - started, 1),
        },
    }
    # headroom.json comes last: where it is, the rest is too.
    write_atomically(options.out / EXAMPLES_FILE, _examples(samples, study.measured))
    write_atomically(options.out / PAGE_FILE, [markdown_page(results, samples, study.measured)])
    write_json(options.out / RESULT_FILE, results)
    return results


def _samples(options: HeadroomOptions, tenant: TenantSettings) -> tuple[list[Sample], int]:
    """Return the queries to study, and how many of the file's have no relevant passages while others have.

    Raises:
        BadInput: a file cannot be read, a sample_id occurs twice, or no query can be made.
    """
    unjudged = 0
    if options.test is not None:
        read = read_samples(options.test)
        ids = [sample.sample_id for sample in read]
        if len(set(ids)) < len(ids):
            repeated = next(name for name in ids if ids.count(name) > 1)
            raise BadInput(f"{options.test}: sample_id {repeated!r} occurs more than once")
        # Where relevant passages are known for some samples, only those can be judged.
        known = [sample for sample in read if sample.relevant_doc_ids]
        samples = known or read
        if unjudged := len(read) - len(samples):
            console.print(f"[yellow]{unjudged} of {len(read)} samples have no relevant passages: left out")
    else:
        wanted = options.queries or SYNTHETIC
        passages = read_passages(options.kb) if options.kb else served_passages(tenant, 5 * wanted, options.seed)
        samples = make_queries(passages, tenant, wanted, options.seed)
        if not samples:
            raise BadInput(f"{options.kb or tenant.rag.url}: no query could be made of {len(passages)} passages")
        options.out.mkdir(parents=True, exist_ok=True)
        write_atomically(options.out / QUERIES_FILE, [sample.to_json() for sample in samples])
    if options.queries is not None and options.queries < len(samples):
        drawn = sorted(random.Random(options.seed).sample(range(len(samples)), options.queries))
        samples = [samples[i] for i in drawn]
    return samples, unjudged


def _is_reached(one: Measured) -> bool:
    """Return whether any rewrite of a sample finds a relevant passage."""
    return any(found.rank for found in (*one.fixed.values(), *(draw for draws in one.draws.values() for draw in draws)))


def _candidates(samples: Sequence[Sample], tenant: TenantSettings, options: HeadroomOptions) -> Candidates:
    """Gather every rewrite that needs no service. Models come last: they take longest."""
    frequencies = Frequencies(f"{s.original_query}\n{s.context.text}" for s in samples)
    candidates = Candidates(fixed={**original_queries(samples), **rule_rewrites(samples, frequencies)})
    for name, path in options.recorded.items():
        candidates.draws[name] = recorded_draws(samples, path, options.n)
    for name, folder in options.models.items():
        with console.status(f"{name}: drawing {options.n} rewrites of {len(samples)} queries"):
            candidates.draws[name] = model_draws(
                folder,
                samples,
                tenant,
                options.out / "cache",
                n=options.n,
                temperature=options.temperature,
                max_new_tokens=options.max_new_tokens or answer_limit(folder),
                seed=options.seed,
            )
    return candidates


def _examples(samples: Sequence[Sample], measured: Mapping[str, Sequence[Measured]]) -> list[str]:
    """Return a line a sample: the rank of each system through each channel, and what the oracles chose."""
    lines = []
    for place, sample in enumerate(samples):
        channels = {
            name: {
                "failure": rows[place].failure,
                "ranks": {system: found.rank for system, found in rows[place].fixed.items()},
                "draws": {source: [found.rank for found in of] for source, of in rows[place].draws.items()},
                "chosen": rows[place].chosen,
            }
            for name, rows in measured.items()
        }
        row = {"sample_id": sample.sample_id, "query": sample.original_query, "context": sample.context.text}
        lines.append(json.dumps({**row, "channels": channels}, ensure_ascii=False))
    return lines


def _parse_args(argv: list[str] | None) -> HeadroomOptions:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.headroom",
        description="How much can rewriting gain on this knowledge base and retriever?",
    )
    parser.add_argument("--tenant", required=True, help="name of a tenant, or its YAML file")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results and of the answers so far")
    queries = parser.add_mutually_exclusive_group(required=True)
    queries.add_argument("--test", type=Path, metavar="FILE", help="held-out samples (JSONL)")
    queries.add_argument("--synthesise", action="store_true", help="make queries from the knowledge base's passages")
    parser.add_argument("--kb", type=Path, metavar="DIR", help="with --synthesise: BEIR folder of the passages")
    parser.add_argument("--queries", type=int, metavar="N", help=f"at most (all of --test, else {SYNTHETIC})")
    parser.add_argument("--rag-url", help="retrieval service (default: the tenant's)")
    parser.add_argument(
        "--channels", nargs="+", choices=list(CHANNELS), default=list(CHANNELS), help="(default: all of them)"
    )
    parser.add_argument("--model", action="append", default=[], metavar="NAME=FOLDER", help="Hugging Face model folder")
    parser.add_argument(
        "--recorded", action="append", default=[], metavar="NAME=PATH", help="JSONL of rewrites, or a run's folder"
    )
    parser.add_argument("--n", type=int, default=16, help=f"draws of a query, at most {MOST_DRAWS} (default: 16)")
    parser.add_argument(
        "--baseline-n", type=int, default=1, metavar="N", help="draws of the deployed rewriter, asked live (default: 1)"
    )
    parser.add_argument("--temperature", type=float, default=1.0, help="of the models' draws (default: 1)")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="(default: as many as in the model's training)")
    parser.add_argument(
        "--subsets", type=int, default=64, metavar="N", help="word subsets of a query; 0: no oracle (default: 64)"
    )
    parser.add_argument("--max-calls", type=int, default=100_000, metavar="N", help="retrieval requests at most")
    parser.add_argument("--seed", type=int, default=0)
    args = vars(parser.parse_args(argv))
    for name, low, high in (("n", 1, MOST_DRAWS), ("baseline_n", 1, MOST_DRAWS), ("subsets", 0, 10_000)):
        if not low <= args[name] <= high:
            parser.error(f"--{name.replace('_', '-')}: {args[name]} is not in {low} to {high}")
    if args["kb"] is not None and not args["synthesise"]:
        parser.error("--kb goes with --synthesise")
    no_temperature = not 0 < args["temperature"] < math.inf
    if (args["queries"] is not None and args["queries"] < 1) or args["max_calls"] < 1 or no_temperature:
        parser.error("--queries, --max-calls and --temperature are positive")
    args["recorded"] = _folders("--recorded", args["recorded"], ())
    args["models"] = _folders("--model", args.pop("model"), args["recorded"])
    del args["synthesise"]
    return HeadroomOptions(**args)


def _folders(option: str, texts: Sequence[str], taken: Container[str]) -> dict[str, Path]:
    return {name: Path(path) for name, path in parse_systems(option, "PATH", texts, taken).items()}


if __name__ == "__main__":
    raise SystemExit(main())
