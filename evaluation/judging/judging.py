"""Judge the systems' rewrites: plan, ask, sum up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from evaluation.comparison import pairs
from evaluation.judging.asking import Verdicts, ask_judge
from evaluation.judging.calibration import Calibration, calibrate
from evaluation.judging.summary import judge_metrics, preference, questions
from evaluation.options import CompareOptions
from evaluation.paid.ledger_use import count_answers, read_spent
from evaluation.paid.plan import PlannedCalls, plan_calls
from evaluation.provenance.training_run import TrainingRun
from reward.judge.canary import CanaryPair
from reward.judge.judge import read_prompt
from reward.judge.protocol import pairwise_question, pointwise_question, render_rubric
from reward.ledger.ledger import Ledger
from reward.records.call import CallKind
from reward.records.outcome import Verdict
from reward.records.sample import Sample
from reward.settings.recipe import JudgeSettings, TenantSettings

VERDICT_TOKENS = 150  # of a verdict with its reason of 50 to 100 characters


@dataclass(frozen=True)
class Jury:
    """The judge of a comparison.

    Args:
        runs: model -> the training run that it comes from.
        trained: the models whose training it judged; there are none unless it was forced.
        labelled: pairs that people labelled.
    """

    profile: JudgeSettings
    runs: Mapping[str, TrainingRun | None]
    trained: Sequence[str]
    labelled: Sequence[CanaryPair]


@dataclass(frozen=True)
class Judged:
    """`rows`: for each sample what `rewrites.jsonl` says of it: system -> 综合得分, pair -> preference."""

    metrics: dict[str, Any]
    rows: list[dict[str, Any]]
    missing: list[str]


def plan_judging(
    jury: Jury, tenant: TenantSettings, samples: Sequence[Sample], systems: Sequence[str], options: CompareOptions
) -> PlannedCalls:
    """Count what is asked at most: equal rewrites are asked about once, which only shows when they are there."""
    in_mode = {mode: jury.profile.model_copy(update={"mode": mode}) for mode in ("pointwise", "pairwise")}
    rubric = {mode: render_rubric(read_prompt(s), tenant.system_prompt) for mode, s in in_mode.items()}
    compared = pairs(systems)
    grades, comparisons = len(samples) * len(systems), 2 * (len(samples) * len(compared) + len(jury.labelled))
    typical = [pointwise_question(rubric["pointwise"], sample, sample.original_query) for sample in samples]
    if comparisons > grades:
        typical = [
            pairwise_question(rubric["pairwise"], sample, sample.original_query, sample.original_query)
            for sample in samples
        ]
    done = count_answers(options.ledger_file, options.run_id, CallKind.JUDGE, jury.profile.service)
    what = f"judge: {len(systems)} systems graded, {len(compared)} pairs in both orders"
    if jury.labelled:
        what += f", {len(jury.labelled)} labelled pairs"
    return plan_calls(what, jury.profile, typical, grades + comparisons, done, VERDICT_TOKENS)


def judge_systems(
    jury: Jury,
    tenant: TenantSettings,
    samples: Sequence[Sample],
    texts: Mapping[str, Sequence[str]],
    ledger: Ledger,
    options: CompareOptions,
    console: Console,
) -> Judged:
    """Grade every rewrite and compare every pair.

    Args:
        texts: system -> rewrite of each sample.
    """
    compared = pairs(list(texts))
    grades, comparisons = questions(texts, compared)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("judging", total=len(grades) + len(comparisons) + len(jury.labelled))
        verdicts = ask_judge(
            jury.profile,
            tenant,
            ledger,
            options.cny_per_usd,
            samples,
            grades,
            comparisons,
            jury.labelled,
            lambda: progress.advance(bar),
        )
    calibration = calibrate(jury.profile.service, verdicts.labelled) if jury.labelled else None
    summary = judge_metrics(texts, compared, verdicts, calibration, seed=options.seed)
    trained_with = {name: run.judge if run else None for name, run in jury.runs.items()}
    metrics = {
        "profile": options.judge,
        "model": jury.profile.service,
        "trained_with": trained_with,
        "forced": bool(jury.trained),
        **summary,
        "labels": _labels(calibration) if calibration else None,
        "spent": read_spent(options.ledger_file, options.run_id, CallKind.JUDGE),
    }
    rows = [_row(i, texts, compared, verdicts) for i in range(len(samples))]
    return Judged(metrics, rows, _missing(jury, summary, verdicts, calibration, len(samples)))


def _labels(calibration: Calibration) -> dict[str, Any]:
    check = calibration.check
    return {
        "judged": check.judged,
        "failed": check.failed,
        "decided_by_both": calibration.labels,
        "agreement": check.agreement,
        "kappa": check.kappa,
        "kappa_ci95": None if check.kappa is None else [check.kappa_low, check.kappa_high],
        "flipped": check.flipped,
        "first_preference": check.first_preference,
    }


def _row(
    i: int, texts: Mapping[str, Sequence[str]], compared: Sequence[tuple[str, str]], verdicts: Verdicts
) -> dict[str, Any]:
    overall = {}
    for name, rewrites in texts.items():
        grade = verdicts.grades.get((i, rewrites[i]))
        overall[name] = grade.overall if isinstance(grade, Verdict) else None
    preferred = {
        f"{a}_vs_{b}": getattr(preference(verdicts.preferences, i, texts[a][i], texts[b][i]), "value", None)
        for a, b in compared
    }
    return {"overall": overall, "preferred": preferred}


def _missing(
    jury: Jury, summary: Mapping[str, Any], verdicts: Verdicts, calibration: Calibration | None, samples: int
) -> list[str]:
    missing = []
    abstained = summary["abstained"]
    pairs_abstained = sum(result["abstained"] for result in summary["win_rate"].values())
    if abstained["samples"] or pairs_abstained:
        again = "run the same command again: what is answered is not paid for twice"
        missing.append(
            f"judge: {abstained['samples']} of {samples} samples lack a grade and {pairs_abstained} comparisons are "
            f"missing ({abstained['not_asked']} questions were not asked any more); last failure: "
            f"{verdicts.last_failure}; {again}"
        )
    missing += [
        f"judge: which judge trained {name} is not known: no recipe.yaml lies by its folder"
        for name, run in jury.runs.items()
        if run is None
    ]
    if calibration is None:
        missing.append("judge: win rates are not corrected for its errors: no --labels are given")
    else:
        if calibration.check.failed:
            missing.append(f"judge: {calibration.check.failed} labelled pairs were not judged")
        if calibration.problem:
            missing.append(f"judge: win rates are not corrected: {calibration.problem}")
    return missing
