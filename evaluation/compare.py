"""Compare systems side by side on held-out samples, through live retrieval.

    python -m evaluation.compare --test rl_test.jsonl --tenant fivedoctors --out outputs/eval/fivedoctors \\
        --model sft=outputs/sft/fivedoctors/final --model rl=outputs/rl/fivedoctors/final \\
        --prompted zero_shot=self_hosted --judge gpt5 --max-cost 20

Every system rewrites every sample, the tenant's RAG service retrieves with each rewrite, and the rank of the first
relevant passage decides. A sample that any system got no answer for leaves the comparison for all of them and is
counted. A judge that trained none of the models grades the rewrites and compares them in both orders. What costs money
is planned and shown first, and goes through a ledger: the same command again pays for nothing twice. Writes
`rewrites.jsonl` (a line a sample) and `metrics.json`; what could not be measured stands in `provenance.missing`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from data_prep.baseline.asking import run_until_stopped, with_options
from evaluation.comparison import BY_RANK, BY_TOP1, compare_answers
from evaluation.efficiency import efficiency
from evaluation.inputs import Inputs, missing_inputs, read_inputs
from evaluation.judging.judging import Judged, judge_systems, plan_judging
from evaluation.options import CompareOptions, parse_options
from evaluation.paid.ledger_use import read_spent_usd, read_uses
from evaluation.paid.plan import PlannedCalls, check_consent, plan_calls, print_plan
from evaluation.provenance.retriever import describe_retriever
from evaluation.provenance.rows import failed_gates, gate_metrics, origins_of, rows, scorers_of, versions
from evaluation.retrieval import TOP_K, Found, RetrievalResult, failure_of, retrieve_rewrites
from evaluation.rewriters.former_run import former_run
from evaluation.rewriters.prompted import OUTPUT_TOKENS, prompted_key, prompted_question
from evaluation.rewriting import Rewriting, rewrite_all
from evaluation.summary import METRICS_FILE, REWRITES_FILE, print_summary
from evaluation.systems import (
    BASELINE,
    DESCRIPTION,
    ORIGINAL,
    Rewrite,
    has_baseline,
)
from evaluation.targets import compare_with_targets
from evaluation.training_log import judge_took_part, reward_change
from reward.ledger.ledger import Ledger
from reward.records.commands import command
from reward.records.files import BadInput, file_sha256, write_atomically
from reward.records.sample import Sample
from reward.services.served_index import read_index
from reward.settings.recipe import BudgetLimits, LedgerSettings, TenantSettings, load_tenant

console = Console()


@command
def main(argv: list[str] | None = None) -> int:
    options = parse_options(argv)
    return run_until_stopped(lambda: compare(options), f"paid answers are kept in {options.ledger_file}")


def compare(options: CompareOptions) -> dict[str, Any]:
    """Plan, rewrite, retrieve, judge, write. Returns what `metrics.json` holds.

    Raises:
        BadInput: an option or a file cannot be used, money was not consented to, or nothing is left to compare.
    """
    started = time.monotonic()
    given = load_tenant(options.tenant)
    tenant = given.model_copy(update={"rag": with_options(given.rag, {"url": options.rag_url})})
    inputs = read_inputs(options)
    judged = inputs.judged
    plan = _plan(inputs, tenant, options)
    if plan:
        print_plan(console, plan)
        check_consent(plan, read_spent_usd(options.ledger_file, options.run_id), options.max_cost)

    with closing(Ledger(_ledger_settings(options))) if plan else nullcontext() as ledger:
        made = rewrite_all(
            judged,
            tenant,
            options,
            given=inputs.given,
            prompted=inputs.prompted,
            folders={name: folder for name, (folder, _) in inputs.folders.items()},
            limits=inputs.limits,
            ledger=ledger,
            console=console,
        )
        answers = _retrieve_all(judged, made.rewrites, tenant)
        failures = [failure_of(index, answers) for index in range(len(judged))]
        kept, found = _answered(judged, answers, failures, inputs.by_rank, options, tenant)
        texts = {
            name: [text for i in kept if isinstance(text := rewrites[i], str)]
            for name, rewrites in made.rewrites.items()
        }
        compared_samples = [judged[i] for i in kept]
        gated = {
            name: failed_gates(compared_samples, rewrites, tenant)
            for name, rewrites in texts.items()
            if name not in (ORIGINAL, DESCRIPTION)
        }
        compared = compare_answers(
            compared_samples,
            found,
            by_rank=inputs.by_rank,
            seed=options.seed,
            held_out_slices=options.held_out_slices,
            gated=gated,
            language=tenant.language,
        )
        # The judge is asked about the headline samples alone, and last: what retrieval could not compare costs nothing.
        headline = [
            j for j, s in enumerate(compared_samples) if not set(options.held_out_slices) & set(s.metadata.slices)
        ]
        verdicts = _judge(inputs, tenant, compared_samples, texts, headline, ledger, options)

    metrics: dict[str, Any] = {
        **compared,
        "gated": gate_metrics(gated),
        **efficiency(made.uses),
        "judge": verdicts.metrics if verdicts else None,
        **({"reward": change} if inputs.log and (change := reward_change(inputs.log)) else {}),
        "seconds": {name: cost["seconds"] for name, cost in inputs.costs.items()}
        | {"evaluation": round(time.monotonic() - started, 1)},
        "peak_gb": {name: cost["peak_gb"] for name, cost in inputs.costs.items()},
    }
    metrics["targets"] = compare_with_targets(tenant.targets, list(options.models), metrics)
    metrics["provenance"] = _provenance(inputs, tenant, options, made, answers, failures, verdicts)
    # metrics.json comes last: where it is, the rewrites are too.
    options.out.mkdir(parents=True, exist_ok=True)
    lines = rows(
        judged,
        made.rewrites,
        answers,
        failures,
        {name: dict(zip(kept, gates, strict=True)) for name, gates in gated.items()},
        {kept[j]: row for j, row in zip(headline, verdicts.rows, strict=True)} if verdicts else {},
    )
    write_atomically(options.out / REWRITES_FILE, lines)
    write_atomically(options.out / METRICS_FILE, [json.dumps(metrics, ensure_ascii=False, indent=2)])
    print_summary(console, metrics, options.out)
    return metrics


def _provenance(
    inputs: Inputs,
    tenant: TenantSettings,
    options: CompareOptions,
    made: Rewriting,
    answers: Mapping[str, Sequence[RetrievalResult]],
    failures: Sequence[str | None],
    verdicts: Judged | None,
) -> dict[str, Any]:
    """Return what the metrics are made of, and what is missing of them."""
    evaluated = sum(failure is None for failure in failures)
    scorers = scorers_of(answers)
    index = read_index(tenant.rag, tenant.tenant_id)
    return {
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "tenant": tenant.tenant_id,
        "test": {"path": str(options.test), "sha256": file_sha256(options.test)},
        "models": {name: {"path": str(folder), "sha256": sha256} for name, (folder, sha256) in inputs.folders.items()},
        "recorded": {name: _recording_hash(path) for name, path in options.recorded.items()},
        "prompted": {
            name: {"model": profile.service, "prompt": profile.prompt} for name, profile in inputs.prompted.items()
        },
        "counts": {
            "samples": len(inputs.samples),
            "evaluated": evaluated,
            "abstained": len(inputs.judged) - evaluated,
            "without_relevant_passages": len(inputs.samples) - len(inputs.judged),
        },
        "abstained_because": dict(Counter(failure for failure in failures if failure)),
        "judged_by": BY_RANK if inputs.by_rank else BY_TOP1,
        "scorer": ", ".join(scorers) or "not stated by the service",
        "llm_judge": {"evaluation": bool(verdicts), "training": judge_took_part(inputs.log) if inputs.log else None},
        "retrieval": {"url": tenant.rag.url, "kb_name": tenant.rag.kb_name, "top_k": TOP_K, "score_threshold": 0},
        "retriever": describe_retriever(tenant.rag, index, scorers, inputs.runs),
        "max_new_tokens": inputs.limits
        | {name: profile.max_output_tokens for name, profile in inputs.prompted.items()},
        "cut": made.cut,
        "measured_as": {name: use.measured_as for name, use in made.uses.items() if use.measured_as},
        "missing": [
            *missing_inputs(inputs, tenant, evaluated, origins_of(answers), index is None),
            *_unreached(answers, failures, inputs.by_rank),
            *made.missing,
            *(verdicts.missing if verdicts else []),
        ],
        "seed": options.seed,
        "versions": versions(),
    }


def _plan(inputs: Inputs, tenant: TenantSettings, options: CompareOptions) -> list[PlannedCalls]:
    """List what is asked of paid services, at most."""
    plan = []
    for name, profile in inputs.prompted.items():
        asked = {
            prompted_key(profile, question): question
            for sample in inputs.judged
            for question in [prompted_question(profile, tenant, sample)]
        }
        done = len(read_uses(options.ledger_file, asked))
        left = list(asked.values())
        plan.append(plan_calls(name, profile, left, len(asked), done, OUTPUT_TOKENS[profile.prompt]))
    if inputs.jury:
        systems = [ORIGINAL, *([BASELINE] if has_baseline(inputs.judged, tenant) else [])]
        systems += [*inputs.given, *inputs.prompted, *inputs.folders]
        plan.append(plan_judging(inputs.jury, tenant, inputs.judged, systems, options))
    return plan


def _recording_hash(path: Path) -> str:
    run, _ = former_run(path, "")
    return file_sha256(run / REWRITES_FILE if run else path)


def _ledger_settings(options: CompareOptions) -> LedgerSettings:
    limit = None if options.max_cost is None else options.max_cost * options.cny_per_usd
    return LedgerSettings(
        path=options.ledger_file,
        run_id=options.run_id,
        cny_per_usd=options.cny_per_usd,
        run=BudgetLimits(cny=limit),
    )


def _judge(
    inputs: Inputs,
    tenant: TenantSettings,
    samples: Sequence[Sample],
    texts: Mapping[str, Sequence[str]],
    headline: Sequence[int],
    ledger: Ledger | None,
    options: CompareOptions,
) -> Judged | None:
    if inputs.jury is None or ledger is None:
        return None
    chosen = {name: [t[j] for j in headline] for name, t in texts.items() if name != DESCRIPTION}
    return judge_systems(inputs.jury, tenant, [samples[j] for j in headline], chosen, ledger, options, console)


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
        BadInput: no sample is left, nothing is found for any, or hits name no document although relevant ones are
            known.
    """
    kept = [index for index, failure in enumerate(failures) if failure is None]
    if not kept:
        raise BadInput(f"no sample could be compared through {tenant.rag.url}; first failure: {failures[0]}")
    if all(set(options.held_out_slices) & set(judged[i].metadata.slices) for i in kept):
        names = " ".join(options.held_out_slices)
        raise BadInput(f"--held-out-slices {names}: no sample is left for the headline metrics")
    found = {
        name: [a for i in kept if isinstance(a := system_answers[i], Found)] for name, system_answers in answers.items()
    }
    hits = [f for system in found.values() for f in system if f.doc_ids]
    if by_rank and not hits:
        raise BadInput(f"{tenant.rag.url}: finds nothing for any rewrite of any sample: is the knowledge base empty?")
    if by_rank and not any(map(_has_document_ids, hits)):
        raise BadInput(f"{tenant.rag.url}: hits carry no doc_id, so relevant passages cannot be recognised")
    return kept, found


def _retrieve_all(
    samples: Sequence[Sample], rewrites: Mapping[str, Sequence[Rewrite]], tenant: TenantSettings
) -> dict[str, list[RetrievalResult]]:
    unique = {
        (i, text)
        for texts in rewrites.values()
        for i, text in enumerate(texts)
        if isinstance(text, str) and text.strip()
    }
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("retrieving", total=len(unique))
        return asyncio.run(retrieve_rewrites(samples, rewrites, tenant, lambda: progress.advance(bar)))


def _unreached(
    answers: Mapping[str, Sequence[RetrievalResult]], failures: Sequence[str | None], by_rank: bool
) -> list[str]:
    """Say for how many samples no system found a relevant passage: their ids may be of another knowledge base."""
    kept = [place for place, failure in enumerate(failures) if failure is None]
    reached = {
        place
        for system in answers.values()
        for place in kept
        if isinstance(found := system[place], Found) and found.rank is not None
    }
    if not by_rank or len(reached) == len(kept):
        return []
    return [
        f"{len(kept) - len(reached)} of {len(kept)} samples: no system finds a relevant passage among {TOP_K} hits; "
        "none is within reach, or relevant_doc_ids are not ids of this knowledge base"
    ]


def _has_document_ids(found: Found) -> bool:
    return any(not doc_id.startswith("\0") for doc_id in found.doc_ids)


if __name__ == "__main__":
    raise SystemExit(main())
