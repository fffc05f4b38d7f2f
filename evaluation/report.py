"""One self-contained HTML page of a run, for the people who decide: the conclusion first, in Chinese or English.

    python -m evaluation.report --run outputs/eval/fivedoctors --train-log outputs/rl/fivedoctors/reward_metrics.jsonl

Reads `metrics.json` and `rewrites.jsonl` of `python -m evaluation.compare` and the logs of the training, and writes
`report.html` beside them. A run that crashed has a report too: it says what is missing. No script, no font and no
picture is loaded from elsewhere.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path

from jinja2 import ChainableUndefined, Environment, PackageLoader, Template

from evaluation.metrics import TOP1
from evaluation.page import sections
from evaluation.page.curves import curves_without_data, draw_curves
from evaluation.page.examples import choose_examples, extremes
from evaluation.page.run_files import RunFiles, not_measured, read_run
from evaluation.texts import LANGUAGES, Texts, load_texts
from evaluation.training_log import judge_took_part, reward_change
from reward.records.commands import command
from reward.records.files import write_atomically

REPORT_FILE = "report.html"


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the report of a comparison: one self-contained HTML page.")
    parser.add_argument("--run", type=Path, required=True, help="folder that evaluation.compare wrote")
    parser.add_argument("--train-log", type=Path, help="reward_metrics.jsonl of the RL run, for the curves")
    parser.add_argument(
        "--trainer-log",
        type=Path,
        metavar="FILE",
        help="the trainer's output, for entropy and KL (default: logs/metrics beside --train-log)",
    )
    parser.add_argument("--language", choices=LANGUAGES, default="en", help="default: %(default)s")
    parser.add_argument("--title", help="default: what the page is about, in its language")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of examples")
    args = parser.parse_args(argv)
    texts = load_texts("report", args.language)
    run = read_run(args.run, args.train_log, args.trainer_log, texts)
    target = args.run / REPORT_FILE
    page = render_report(run, texts, title=args.title, seed=args.seed)
    write_atomically(target, [page.encode("utf-8", "replace").decode()])
    print(f"wrote {target} ({target.stat().st_size / 1024:.0f} KB)")
    for sentence in run.missing:
        print(f"missing: {sentence}")
    return 0


def render_report(run: RunFiles, texts: Texts, *, title: str | None = None, seed: int = 0) -> str:
    """Render the page of what is there of a run.

    Args:
        title: None: what the page is about.
        seed: of the choice of examples.
    """
    metrics, log = sections.without_nothing(run.metrics), run.log
    systems = metrics.get("systems") or {}
    names = sections.metric_names(systems, texts)
    by_rank = sections.is_by_rank(metrics, run.rows)
    known = list(systems) or list(dict.fromkeys(name for row in run.rows for name in row.get("systems") or {}))
    pair = sections.contest(known)
    provenance = metrics.get("provenance") or {}
    judge = metrics.get("judge") or {}
    losses, gains = extremes(run.rows, *pair, by_rank=by_rank) if pair else ([], [])
    headline_metric = TOP1 if not by_rank else "mrr@10"
    return _template().render(
        t=texts,
        w=sections.Wording(texts),
        title=title or texts("title"),
        missing=run.missing,
        not_measured=not_measured(metrics, texts),
        metrics=metrics,
        systems=systems,
        metric_names=names,
        best=sections.best_values(systems, names),
        bar_metrics=list(dict.fromkeys([sections.first_metric(names), headline_metric])) if names else [],
        fixed=sections.FIXED,
        slice_metric=sections.first_metric(names) if names else "",
        slice_names=sections.slice_order(metrics.get("slices") or {}) if names else [],
        verdict=sections.headline(metrics, texts),
        targets=sections.target_table(metrics.get("targets") or []),
        win_rates=[(*key.split("_vs_", 1), result) for key, result in (metrics.get("win_rate") or {}).items()],
        judge=judge,
        judges_in_training=sections.judges_in_training(judge, texts),
        judge_dimensions=sections.graded_dimensions(judge),
        harmed=sections.harmed_rows(metrics, headline_metric),
        harmed_queries=sections.harmed_queries(metrics, run.rows, pair[0]) if pair else (0, []),
        headline_metric=headline_metric,
        speed=sections.speed_rows(metrics),
        curves=draw_curves(log, texts),
        not_logged=curves_without_data(log, texts),
        reward=reward_change(log) or metrics.get("reward"),
        has_trainer_log=run.has_trainer_log,
        gates=sections.gate_rows(log),
        lexical=any(line.get("lexical_share") for line in log),
        pair=pair,
        losses=losses,
        gains=gains,
        examples=choose_examples(run.rows, *pair, by_rank=by_rank, seed=seed) if pair else [],
        by_rank=by_rank,
        provenance=provenance,
        abstained_reasons=sections.reasons(provenance.get("abstained_because") or {}),
        limits=sections.token_limits(provenance, texts),
        judge_in_training=judge_took_part(log) if log else (provenance.get("llm_judge") or {}).get("training"),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("evaluation", "page"),
        autoescape=True,
        # Any part of metrics.json may be missing: its number is then a dash.
        undefined=ChainableUndefined,
        finalize=lambda value: "–" if value is None else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


if __name__ == "__main__":
    raise SystemExit(main())
