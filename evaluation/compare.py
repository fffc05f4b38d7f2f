"""Compare systems side by side on held-out samples, through live retrieval.

    python -m evaluation.compare --test rl_test.jsonl --tenant fivedoctors --out outputs/eval/fivedoctors \\
        --model sft=outputs/sft/fivedoctors/final --model rl=outputs/rl/fivedoctors/final

Every system rewrites every sample, the tenant's RAG service retrieves with each rewrite, and the rank of the first
relevant passage decides. A sample that any system got no answer for leaves the comparison for all of them and is
counted. Writes `rewrites.jsonl` (a line a sample) and `metrics.json`; `python -m evaluation.report` reads both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import re
import time
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from data_prep.baseline.asking import with_options
from evaluation.comparison import BY_RANK, BY_TOP1, compare_answers
from evaluation.retrieval import TOP_K, Found, RetrievalResult, failure_of, retrieve_rewrites
from evaluation.summary import METRICS_FILE, REWRITES_FILE, print_summary
from evaluation.systems import (
    BASELINE,
    DESCRIPTION,
    ORIGINAL,
    answer_limit,
    model_hash,
    rewrite_by_baseline,
    rewrite_by_description,
    rewrite_by_model,
    rewrite_by_original,
    rewrite_by_recording,
)
from evaluation.training_log import judge_took_part, read_training_log, reward_change
from reward.records.commands import command
from reward.records.files import BadInput, file_sha256, write_atomically
from reward.records.sample import Sample, read_samples
from reward.settings.recipe import TenantSettings, load_tenant

PACKAGES = ("ir-measures", "numpy", "scipy", "torch", "transformers", "vllm")

console = Console()


@command
def main(argv: list[str] | None = None) -> int:
    args = _parse_args(argv)
    models = _parse_systems("--model", args.pop("model"), ())
    recorded = _parse_systems("--recorded", args.pop("recorded"), models)
    compare(CompareOptions(models=models, recorded=recorded, **args))
    return 0


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """What to compare on which samples, and where the results go.

    Args:
        test: held-out samples (JSONL).
        tenant: its name, or its YAML file.
        out: folder of `metrics.json`, `rewrites.jsonl` and the cache of rewrites.
        models: name → Hugging Face model folder; the names are lower case and none of the fixed systems'.
        recorded: name → JSONL of `query`, `history_context`, `rewritten_query`: rewrites made elsewhere.
        rag_url: retrieval service; None: the tenant's.
        max_new_tokens: of a model's rewrite; None: as many as its rollouts had in training.
        seed: of the bootstrap and the engine.
        train_log: `reward_metrics.jsonl` of the RL run.
        held_out_slices: slices left out of the headline metrics and reported by themselves.
        costs: JSON object of stage: {seconds, peak_gb}.
    """

    test: Path
    tenant: str
    out: Path
    models: Mapping[str, Path]
    recorded: Mapping[str, Path] = field(default_factory=dict)
    rag_url: str | None = None
    max_new_tokens: int | None = None
    seed: int = 0
    train_log: Path | None = None
    held_out_slices: Sequence[str] = ()
    costs: Path | None = None


def compare(options: CompareOptions) -> dict[str, Any]:
    """Rewrite, retrieve, judge, write. Returns what `metrics.json` holds.

    Raises:
        BadInput: an option or a file cannot be used, or nothing is left to compare.
    """
    started = time.monotonic()
    given = load_tenant(options.tenant)
    tenant = given.model_copy(update={"rag": with_options(given.rag, {"url": options.rag_url})})
    # Every file is read before the first model is loaded: a typing error must not cost the minutes of a generation.
    samples = _read_test(options.test)
    costs = _read_costs(options.costs)
    log = read_training_log(options.train_log) if options.train_log else None
    models = {name: (folder, model_hash(folder)) for name, folder in options.models.items()}

    # Where relevant passages are known for some samples, only those can be judged.
    by_rank = any(sample.relevant_doc_ids for sample in samples)
    judged = [sample for sample in samples if sample.relevant_doc_ids] if by_rank else samples
    rewrites, cut = _rewrite_all(judged, tenant, options)
    answers = _retrieve_all(judged, rewrites, tenant)
    failures = [failure_of(index, answers) for index in range(len(judged))]
    kept, found = _answered(judged, answers, failures, by_rank, options, tenant)

    compared = compare_answers(
        [judged[i] for i in kept],
        found,
        by_rank=by_rank,
        seed=options.seed,
        held_out_slices=options.held_out_slices,
    )
    metrics = {
        **compared,
        **({"reward": change} if log and (change := reward_change(log)) else {}),
        "seconds": {name: cost["seconds"] for name, cost in costs.items()}
        | {"evaluation": round(time.monotonic() - started, 1)},
        "peak_gb": {name: cost["peak_gb"] for name, cost in costs.items()},
        "provenance": {
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "tenant": tenant.tenant_id,
            "test": {"path": str(options.test), "sha256": file_sha256(options.test)},
            "models": {name: {"path": str(folder), "sha256": sha256} for name, (folder, sha256) in models.items()},
            "recorded": {name: file_sha256(path) for name, path in options.recorded.items()},
            "counts": {
                "samples": len(samples),
                "evaluated": len(kept),
                "abstained": len(judged) - len(kept),
                "without_relevant_passages": len(samples) - len(judged),
            },
            "abstained_because": dict(Counter(failure for failure in failures if failure)),
            "judged_by": BY_RANK if by_rank else BY_TOP1,
            "scorer": _scorer_of(answers),
            "llm_judge": {"evaluation": False, "training": judge_took_part(log) if log else None},
            "retrieval": {"url": tenant.rag.url, "kb_name": tenant.rag.kb_name, "top_k": TOP_K, "score_threshold": 0},
            "max_new_tokens": {name: _limit(options, folder) for name, folder in options.models.items()},
            "cut": cut,
            "seed": options.seed,
            "versions": _versions(),
        },
    }
    # metrics.json comes last: where it is, the rewrites are too.
    options.out.mkdir(parents=True, exist_ok=True)
    write_atomically(options.out / REWRITES_FILE, _rows(judged, rewrites, answers, failures))
    write_atomically(options.out / METRICS_FILE, [json.dumps(metrics, ensure_ascii=False, indent=2)])
    print_summary(console, metrics, options.out)
    return metrics


def _answered(
    judged: Sequence[Sample],
    answers: Mapping[str, Sequence[RetrievalResult]],
    failures: Sequence[str | None],
    by_rank: bool,
    options: CompareOptions,
    tenant: TenantSettings,
) -> tuple[list[int], dict[str, list[Found]]]:
    """Return the places of the samples that every system answered, and what each system found for them.

    Raises:
        BadInput: no sample is left, or hits name no document although relevant ones are known.
    """
    kept = [index for index, failure in enumerate(failures) if failure is None]
    if not kept:
        raise BadInput(f"{tenant.rag.url}: no sample could be compared; first failure: {failures[0]}")
    if all(set(options.held_out_slices) & set(judged[i].metadata.slices) for i in kept):
        names = " ".join(options.held_out_slices)
        raise BadInput(f"--held-out-slices {names}: no sample is left for the headline metrics")
    found = {
        name: [a for i in kept if isinstance(a := system_answers[i], Found)] for name, system_answers in answers.items()
    }
    if by_rank and not any(_has_document_ids(f) for system in found.values() for f in system):
        raise BadInput(f"{tenant.rag.url}: hits carry no doc_id, so relevant passages cannot be recognised")
    return kept, found


def _rewrite_all(
    samples: Sequence[Sample], tenant: TenantSettings, options: CompareOptions
) -> tuple[dict[str, Sequence[str | None]], dict[str, float]]:
    """Rewrite every sample with every system.

    Returns:
        System → rewrite of each sample; a system that cannot rewrite any is left out. Model → share of rewrites that
        ended at the limit of new tokens.
    """
    cut = {}
    rewrites: dict[str, Sequence[str | None] | None] = {
        ORIGINAL: rewrite_by_original(samples),
        DESCRIPTION: rewrite_by_description(samples),
        BASELINE: rewrite_by_baseline(samples, tenant),
    }
    for name, recording in options.recorded.items():
        rewrites[name] = rewrite_by_recording(samples, recording)
    for name, folder in options.models.items():
        with console.status(f"{name}: rewriting {len(samples)} queries"):
            rewrites[name], cut[name] = rewrite_by_model(
                folder,
                samples,
                tenant,
                options.out / "cache",
                max_new_tokens=_limit(options, folder),
                seed=options.seed,
            )
    return {name: texts for name, texts in rewrites.items() if texts is not None}, cut


def _limit(options: CompareOptions, folder: Path) -> int:
    return options.max_new_tokens or answer_limit(folder)


def _retrieve_all(
    samples: Sequence[Sample], rewrites: Mapping[str, Sequence[str | None]], tenant: TenantSettings
) -> dict[str, list[RetrievalResult]]:
    unique = {(i, text) for texts in rewrites.values() for i, text in enumerate(texts) if text and text.strip()}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("retrieving", total=len(unique))
        return asyncio.run(retrieve_rewrites(samples, rewrites, tenant, lambda: progress.advance(bar)))


def _has_document_ids(found: Found) -> bool:
    return any(not doc_id.startswith("\0") for doc_id in found.doc_ids)


def _rows(
    samples: Sequence[Sample],
    rewrites: Mapping[str, Sequence[str | None]],
    answers: Mapping[str, Sequence[RetrievalResult]],
    failures: Sequence[str | None],
) -> list[str]:
    """Return the lines of `rewrites.jsonl`: a sample each, with every system's rewrite and what it found."""
    rows = []
    for index, (sample, failure) in enumerate(zip(samples, failures, strict=True)):
        systems: dict[str, Any] = {}
        for name, texts in rewrites.items():
            answer = answers[name][index]
            systems[name] = {"rewrite": texts[index]}
            if isinstance(answer, Found):
                systems[name] |= {"rank": answer.rank, "top1": answer.top1}
        row = {
            "sample_id": sample.sample_id,
            "query": sample.original_query,
            "context": sample.context.text,
            "slices": sample.metadata.slices,
            "abstained": failure,
            "systems": systems,
        }
        rows.append(json.dumps(row, ensure_ascii=False))
    return rows


def _read_test(path: Path) -> list[Sample]:
    """Read the samples. Raises BadInput when two share a sample_id."""
    samples = read_samples(path)
    repeated = [key for key, count in Counter(s.sample_id for s in samples).items() if count > 1]
    if repeated:
        raise BadInput(f"{path}: sample_id {repeated[0]!r} occurs more than once")
    return samples


def _parse_systems(option: str, texts: Sequence[str], taken: Container[str]) -> dict[str, Path]:
    """Turn NAME=PATH texts into name → path.

    Raises:
        BadInput: a text is of another form, or its name is taken.
    """
    systems: dict[str, Path] = {}
    for text in texts:
        name, _, path = text.partition("=")
        if not re.fullmatch(r"[a-z0-9_]+", name) or not path:
            raise BadInput(f"{option} {text!r}: expected NAME=PATH, the name in lower-case letters, digits and _")
        if name in (ORIGINAL, DESCRIPTION, BASELINE) or name in systems or name in taken:
            raise BadInput(f"{option} {text!r}: the name {name!r} is taken")
        systems[name] = Path(path)
    return systems


def _scorer_of(answers: Mapping[str, Sequence[RetrievalResult]]) -> str:
    """Return the reranker scorer that the service named in its answers."""
    named = {answer.scorer for system in answers.values() for answer in system if isinstance(answer, Found)}
    return ", ".join(sorted(named - {""})) or "not stated by the service"


def _read_costs(path: Path | None) -> dict[str, dict[str, float]]:
    """Read stage → {seconds, peak_gb}. Raises BadInput when the file holds something else."""
    if path is None:
        return {}
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    try:
        costs = json.loads(path.read_text(encoding="utf-8"))
        return {name: {key: float(cost[key]) for key in ("seconds", "peak_gb")} for name, cost in costs.items()}
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}: not JSON ({error.msg})") from None
    except (AttributeError, KeyError, TypeError, ValueError):
        raise BadInput(f"{path}: expected an object of stage: {{seconds, peak_gb}}") from None


def _versions() -> dict[str, str]:
    """Return the versions of what made the metrics; a package that is not installed took no part."""
    installed = {d.name.lower().replace("_", "-"): d.version for d in metadata.distributions()}
    return {"python": platform.python_version(), **{name: installed[name] for name in PACKAGES if name in installed}}


def _parse_args(argv: list[str] | None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        description="Compare the original query, the deployed baseline and trained models on held-out samples."
    )
    parser.add_argument("--test", type=Path, required=True, help="held-out samples (JSONL)")
    parser.add_argument("--tenant", required=True, help="name of a tenant, or its YAML file")
    parser.add_argument("--out", type=Path, required=True, help="folder for metrics.json, rewrites.jsonl and the cache")
    parser.add_argument("--rag-url", help="retrieval service (default: the tenant's)")
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME=FOLDER", help="a Hugging Face model folder; repeatable"
    )
    parser.add_argument("--recorded", action="append", default=[], metavar="NAME=FILE", help="rewrites made elsewhere")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="(default: as many as in the model's training)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap and the engine")
    parser.add_argument("--train-log", type=Path, help="reward_metrics.jsonl of the RL run")
    parser.add_argument(
        "--held-out-slices",
        nargs="+",
        default=[],
        metavar="SLICE",
        help="slices left out of the headline metrics and reported by themselves",
    )
    parser.add_argument("--costs", type=Path, help="JSON object of stage: {seconds, peak_gb}, for metrics.json")
    return vars(parser.parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(main())
