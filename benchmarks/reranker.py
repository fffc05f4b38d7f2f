"""What does training bring a reranker, and at what cost?

    python -m benchmarks.reranker --beir DIR --base MODEL --work DIR [--clicks] [--steps 200]

DIR is a BEIR folder (corpus.jsonl, queries.jsonl, qrels.tsv). `--lists FILE` trains on a file of the trainer's own
format instead of the folder's queries. `--in-context` takes conversations as the service does: it searches with the
rewrite, and the reranker reads the question after the end of what was said. Test queries share no query and no answer
with training; the check is printed.

For each test query the 30 best passages by BM25 are ranked by: BM25; the service's hybrid search (over all passages,
hashing embedder); the base; the trained model; the trained model and BM25 together, as the service fuses them
(`rag.retrieval.fusion.final_order`) with the part that is best on the validation queries. An answer that BM25 did not
find counts as missed. Intervals are paired 95 % bootstrap intervals over the queries. `--clicks` trains a second model
on a simulated month of clicks on the same queries (`benchmarks.reranker_runs.clicks`).

The same command goes on with what a stopped one left in --work; `--stop-after` ends training at a step (exit code 75).
The last line is JSON: before, after, throughput_ratio, onnx_speedup, p50 of 30 candidates of 256 tokens.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.reranker_runs.clicks import simulate_month
from benchmarks.reranker_runs.ranking import MEASURES, NDCG, Values, kept_scores, ordered, values_of
from benchmarks.reranker_runs.sets import RerankSet, read_set, write_training_file
from benchmarks.reranker_runs.speed import pairs_of_tokens, reranking_seconds, training_throughput
from benchmarks.retrieval_runs.runs import EngineRuns, switched_on
from benchmarks.retrieval_runs.sets import Asked
from rag.documents.read_documents import read_documents
from rag.models.embedder import embedder_maker
from reranker.data.preparing import prepare
from reranker.modelling.export import open_folder
from reranker.modelling.opening import open_model
from reranker.modelling.scoring import logits
from reranker.settings.run import RunSettings
from reranker.training.run import MODEL, run
from reranker.training.validation import interval
from reward.records.commands import command

BM25, HYBRID, BASE, TRAINED, CLICKED = "BM25", "hybrid search", "base", "trained", "trained on clicks"
PARTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the reranker in the final order, as `rag.fit_fusion` tries them
UNFINISHED = 75
_TOKENS = 256


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reranker", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--beir", type=Path, required=True, help="folder of a BEIR set")
    parser.add_argument("--base", type=Path, required=True, help="folder of the model to start from")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder of runs and scores; continued when it is there"
    )
    parser.add_argument("--clicks", action="store_true", help="train on a simulated month of clicks too")
    parser.add_argument(
        "--in-context", action="store_true", help="read each question in its conversation, as the service does"
    )
    parser.add_argument("--lists", type=Path, metavar="FILE", help="training data in the trainer's own JSONL")
    parser.add_argument("--queries", type=int, nargs=3, default=[2000, 100, 200], metavar=("TRAIN", "VAL", "TEST"))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--stop-after", type=int)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8, help="queries in a step")
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument(
        "--train-embeddings", action="store_true", help="of words too: for a base that was not pretrained"
    )
    parser.add_argument("--throughput-steps", type=int, default=6)
    parser.add_argument("--no-onnx", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    one = read_set(args.beir, tuple(args.queries), args.seed, args.lists, args.in_context)
    print(f"{one.name}: {len(one.train)} training, {len(one.validation)} validation, {len(one.test)} test queries")
    print(f"shared (must be 0 queries, 0 answers): {json.dumps(one.check)}")
    found: dict[str, Any] = {"set": one.name, "base_model": args.base.name, "check": one.check}
    # Training, in as many pieces as it takes.
    folders: dict[str, Path] = {}
    for name, source in ((TRAINED, "qrels"), (CLICKED, "clicks"))[: 2 if args.clicks else 1]:
        result = _train(args, one, source, found)
        if result is None:
            print(f"{args.work}: stopped at step {args.stop_after}; the same command goes on")
            return UNFINISHED
        if result["refused"]:
            print(f"{name}: refused: {result['refused']}")
            found.setdefault("refused", {})[name] = result["refused"]
        else:
            folders[name] = args.work / source / MODEL
    # Rankings of the test queries.
    queries = [one.rewrites.get(record.query, record.query) for record in one.test]
    candidates = one.candidates(one.test)
    reachable = sum(
        any(p.doc_id in of for p in record.positives) for record, of in zip(one.test, candidates, strict=True)
    )
    found["reachable"] = round(reachable / len(one.test), 4)
    print(f"{reachable} of {len(one.test)} test queries have an answer among their candidates")
    values = {BM25: values_of(one.test, candidates), HYBRID: values_of(one.test, _hybrid(args.beir, queries))}
    models: dict[str, Callable[[], Any]] = {BASE: lambda: open_model(args.base, args.max_length).cross_encoder}
    models |= {name: partial(open_folder, folder) for name, folder in folders.items()}
    for name, load in models.items():
        place = args.work / name.replace(" ", "_")
        scores = kept_scores(place.with_suffix(".jsonl"), load, one.test, candidates, one.passages)
        values[name] = values_of(one.test, ordered(candidates, scores, 1.0))
        if name == BASE:
            continue
        part = _best_part(place.with_suffix(".validation.jsonl"), load, one)
        values[f"{name}, with BM25"] = values_of(one.test, ordered(candidates, scores, part))
        found.setdefault("part", {})[name] = part
    _report(one, values, found)
    best = folders.get(TRAINED) or folders.get(CLICKED)
    settings = _settings(args, args.work / "qrels.jsonl", "qrels")
    sampler = prepare(settings).sampler(settings)
    speed = training_throughput(args.base, sampler, args.max_length, args.throughput_steps, args.batch)
    found |= {"throughput_ratio": round(speed["ratio"], 3), "pairs_per_second": round(speed["pairs_per_second"], 2)}
    if best:
        _latency(best, one, found, onnx=not args.no_onnx)
    print(json.dumps(found, ensure_ascii=False))
    return 0


def _settings(args: argparse.Namespace, train: Path, name: str) -> RunSettings:
    return RunSettings.model_validate(
        {
            "output": args.work / name,
            "base": args.base,
            "seed": args.seed,
            "max_length": args.max_length,
            "data": {
                "train": [train],
                "validation": [args.work / "validation.jsonl"],
                "forgetting": [args.work / "forgetting.jsonl"],
                "candidates": 15,
            },
            "groups": {"positives": 1, "hard": 4, "random": 1},
            "training": {
                "freeze_embeddings": not args.train_embeddings,
                "epochs": 100,
                "max_steps": args.steps,
                "batch_size": args.batch,
                "learning_rate": args.learning_rate,
                "eval_steps": max(20, args.steps // 4),
                "report_to": [],
            },
            "export": {"onnx": not args.no_onnx, "onnx_tolerance": 1},
        }
    )


def _train(args: argparse.Namespace, one: RerankSet, name: str, found: dict[str, Any]) -> dict[str, Any] | None:
    """Write the files, train, and return the run's result; None when it stopped."""
    args.work.mkdir(parents=True, exist_ok=True)
    lists = {part: one.candidates(records) for part, records in (("train", one.train), ("validation", one.validation))}
    # Validation ranks what BM25 finds first.
    few = [list(names)[:14] for names in lists["validation"]]
    for part, place in (("validation", 0), ("forgetting", 1)):
        write_training_file(args.work / f"{part}.jsonl", one.validation[place::2], few[place::2], one)
    records, candidates = one.train, lists["train"]
    if name == "clicks":
        month = simulate_month(one.train, lists["train"], one.passages, args.seed)
        counts = {"rows": month.rows, "clicks": month.clicks, "positives_right": month.right, "wrong": month.wrong}
        records, candidates = month.records, [{} for _ in month.records]
        found["clicks"] = counts | {"queries": len(records)}
    path = write_training_file(args.work / f"{name}.jsonl", records, candidates, one)
    return run(_settings(args, path, name), args.stop_after)


def _hybrid(folder: Path, queries: Sequence[str]) -> list[list[str]]:
    with TemporaryDirectory(prefix="reranker_benchmark_") as place:
        runs = EngineRuns(Path(place), embedder_maker("hashing"), None, None)
        runs.build(list(read_documents(folder / "corpus.jsonl", "corpus.jsonl")))
        asked = {str(number): Asked(query, "", query) for number, query in enumerate(queries)}
        found = runs.rank(asked, switched_on("dense", "keyword"), lambda: None)
        runs.close()
    return [found[str(number)] for number in range(len(queries))]


def _best_part(cache: Path, load: Callable[[], Any], one: RerankSet) -> float:
    """Return the reranker's part of the final order that is best on the validation queries, the larger of equals."""
    candidates = one.candidates(one.validation)
    scores = kept_scores(cache, load, one.validation, candidates, one.passages)
    means = {part: float(values_of(one.validation, ordered(candidates, scores, part))[NDCG].mean()) for part in PARTS}
    return max(PARTS, key=lambda part: (means[part], part))


def _report(one: RerankSet, values: dict[str, Values], found: dict[str, Any]) -> None:
    table = Table(title=f"{one.name}: {len(one.test)} test queries, 30 candidates by BM25", title_justify="left")
    for heading in ("", *MEASURES, "nDCG@10 over hybrid search [95 %]"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, of in values.items():
        change = interval(of[NDCG] - values[HYBRID][NDCG])
        cells = ["{:.3f} [{:.3f}, {:.3f}]".format(*interval(of[measure])) for measure in MEASURES]
        table.add_row(name, *cells, "" if name == HYBRID else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*change))
        found[name] = {measure: round(float(of[measure].mean()), 4) for measure in MEASURES}
        found[name]["over_hybrid"] = [round(part, 4) for part in change]
    Console(width=140).print(table)
    found["before"] = found[BASE][NDCG]
    found["after"] = found[TRAINED][NDCG] if TRAINED in found else None


def _latency(folder: Path, one: RerankSet, found: dict[str, Any], onnx: bool) -> None:
    """Measure 30 candidates of 256 tokens in PyTorch and ONNX int8, and how their scores differ on the test set."""
    model = open_folder(folder)
    model.tokenizer.model_max_length = min(_TOKENS, int(model.model.config.max_position_embeddings))
    pairs = pairs_of_tokens(model.tokenizer, list(one.passages.values())[:200], _TOKENS, 30)
    seconds = reranking_seconds(lambda some: logits(model, some), pairs)
    found["p50_ms"] = round(seconds * 1000)
    result = json.loads((folder.parent / "result.json").read_text(encoding="utf-8"))
    if onnx and "onnx" in result:
        from reranker.modelling.onnx_file import OnnxScorer

        scorer = OnnxScorer(folder)
        scorer.tokenizer.model_max_length = model.tokenizer.model_max_length
        int8 = reranking_seconds(scorer.logits, pairs)
        found |= {"onnx_p50_ms": round(int8 * 1000), "onnx_speedup": round(seconds / int8, 2)}
        found["onnx_parity"] = result["onnx"]


if __name__ == "__main__":
    raise SystemExit(main())
