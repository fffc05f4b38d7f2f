"""One self-contained HTML page of a comparison, for the people who decide.

    python -m evaluation.report --run outputs/eval/fivedoctors --train-log outputs/rl/fivedoctors/reward_metrics.jsonl

Reads `metrics.json` and `rewrites.jsonl` of `python -m evaluation.compare` and writes `report.html` beside them. No
script, no font and no picture is loaded from elsewhere.
"""

from __future__ import annotations

import argparse
import io
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from evaluation.conclusion import Conclusion, conclude
from evaluation.metrics import TOP1
from evaluation.systems import BASELINE, DESCRIPTION, ORIGINAL
from evaluation.training_log import judge_took_part, read_training_log, reward_change, series
from reward.records.commands import command
from reward.records.files import BadInput, read_jsonl, write_atomically

EXAMPLES = 10
LABELS = {
    ORIGINAL: "Original query",
    DESCRIPTION: "Dialogue as it is",
    BASELINE: "Deployed baseline",
    "sft": "After SFT",
    "rl": "After RL",
}
# The same in a sentence.
PHRASES = {
    ORIGINAL: "the original query",
    DESCRIPTION: "the dialogue as it is",
    BASELINE: "the deployed baseline",
    "sft": "the SFT rewriter",
    "rl": "the RL-trained rewriter",
}
METRIC_LABELS = {
    "recall@1": "Right passage first",
    "recall@5": "In the first 5",
    "recall@10": "In the first 10",
    "mrr@10": "MRR@10",
    "ndcg@10": "nDCG@10",
    TOP1: "Mean score of the first hit",
}


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the report of a comparison: one self-contained HTML page.")
    parser.add_argument("--run", type=Path, required=True, help="folder that evaluation.compare wrote")
    parser.add_argument("--train-log", type=Path, help="reward_metrics.jsonl of the RL run, for the reward curve")
    parser.add_argument("--title", default="Query rewriting: who retrieves better?")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of examples")
    args = parser.parse_args(argv)
    log = read_training_log(args.train_log) if args.train_log else []
    page = render_report(
        read_metrics(args.run / "metrics.json"),
        [row for _, row in read_jsonl(args.run / "rewrites.jsonl")],
        log,
        title=args.title,
        seed=args.seed,
    )
    target = args.run / "report.html"
    write_atomically(target, [page])
    print(f"wrote {target} ({target.stat().st_size / 1024:.0f} KB)")
    return 0


def read_metrics(path: Path) -> dict[str, Any]:
    """Read what `evaluation.compare` wrote.

    Raises:
        BadInput: the file is missing, not JSON, or lacks a part.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file; run evaluation.compare first")
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}: not JSON ({error.msg})") from None
    for key in ("systems", "slices", "win_rate", "held_out_slices", "seconds", "peak_gb", "provenance"):
        if key not in metrics:
            raise BadInput(f"{path}: {key}: missing")
    return metrics


def render_report(
    metrics: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    log: list[dict[str, Any]],
    *,
    title: str,
    seed: int = 0,
) -> str:
    """Render the page.

    Args:
        metrics: as `read_metrics` gives them.
        rows: of `rewrites.jsonl`.
        log: the steps of the training log; may be empty.
        seed: of the choice of examples.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    systems = metrics["systems"]
    metric_names = [name for name in next(iter(systems.values())) if name in METRIC_LABELS]
    # The examples show the most trained system against what it has to beat.
    challenger = next((name for name in ("rl", "sft") if name in systems), None)
    pair = (challenger, BASELINE) if challenger and BASELINE in systems else (BASELINE, ORIGINAL)
    provenance = metrics["provenance"]
    return environment.get_template("report.html.j2").render(
        title=title,
        metrics=metrics,
        systems=systems,
        metric_names=metric_names,
        bar_metrics=[name for name in ("recall@1", "mrr@10", TOP1) if name in metric_names],
        slice_metric="recall@1" if "recall@1" in metric_names else TOP1,
        slice_names=_slice_order(metrics["slices"]),
        label=label,
        metric_label=METRIC_LABELS,
        verdict=headline(metrics),
        win_rates=[(*key.split("_vs_"), result) for key, result in metrics["win_rate"].items()],
        examples=choose_examples(rows, *pair, by_rank=TOP1 not in metric_names, seed=seed),
        pair=pair,
        by_rank=TOP1 not in metric_names,
        curve=reward_curve(log),
        reward=reward_change(log),
        provenance=provenance,
        judge_in_training=judge_took_part(log) if log else provenance["llm_judge"]["training"],
        lexical=any(line.get("lexical_share") for line in log),
        abstained_reasons=provenance["abstained_because"],
    )


def headline(metrics: Mapping[str, Any]) -> Conclusion:
    """Conclude how the most trained system does against what it has to beat."""
    for a, b in (("rl", BASELINE), ("sft", BASELINE), (BASELINE, ORIGINAL)):
        result = metrics["win_rate"].get(f"{a}_vs_{b}")
        if result is not None:
            return conclude(PHRASES[a], PHRASES[b], result)
    return Conclusion("none", "No two systems were compared.", "")


def label(system: str) -> str:
    """Return the name that the page shows for a system."""
    return LABELS.get(system, system)


def choose_examples(
    rows: Sequence[Mapping[str, Any]], a: str, b: str, *, by_rank: bool, seed: int, count: int = EXAMPLES
) -> list[dict[str, Any]]:
    """Draw `count` compared samples with a seed, each with `outcome` of `a` against `b`: win, tie or loss.

    The outcomes are represented in proportion (largest remainders), with at least one example of each that occurs.
    """
    # Sort the samples that both systems answered by their outcome.
    groups: dict[str, list[dict[str, Any]]] = {"win": [], "tie": [], "loss": []}
    for row in rows:
        systems = row["systems"]
        if row["abstained"] or a not in systems or b not in systems:
            continue
        key_a, key_b = (
            1 / (systems[name]["rank"] or float("inf")) if by_rank else systems[name]["top1"] for name in (a, b)
        )
        outcome = "win" if key_a > key_b else "loss" if key_a < key_b else "tie"
        groups[outcome].append({**row, "outcome": outcome})
    # Give each outcome its share of the places, rounded down, but one at least; then deal out what is left.
    present = {name: members for name, members in groups.items() if members}
    total = sum(len(members) for members in present.values())
    share = {name: count * len(members) / total for name, members in present.items()}
    seats = {name: min(len(present[name]), max(1, int(share[name]))) for name in present}
    by_remainder = sorted(present, key=lambda name: int(share[name]) - share[name])
    while sum(seats.values()) < min(count, total):
        name = next(n for n in [*by_remainder, *present] if seats[n] < len(present[n]))
        seats[name] += 1
        by_remainder = [n for n in by_remainder if n != name]
    while sum(seats.values()) > count:
        seats[max(seats, key=lambda name: seats[name])] -= 1
    choice = random.Random(seed)
    return [row for name in present for row in choice.sample(present[name], seats[name])]


def reward_curve(log: list[dict[str, Any]]) -> Markup | None:
    """Draw reward and win rate by step as inline SVG; None without a logged reward."""
    steps, rewards = series(log, "avg_reward")
    if not rewards:
        return None
    # Imported here: a report without a training log needs no plotting library.
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "report", "font.family": "sans-serif"}):
        figure = Figure(figsize=(7, 3), layout="constrained")
        reward_axis = figure.add_subplot()
        reward_axis.plot(steps, rewards, color="#2257a4", linewidth=1.8)
        reward_axis.set_xlabel("training step")
        reward_axis.set_ylabel("average reward", color="#2257a4")
        reward_axis.spines[["top"]].set_visible(False)
        # The policy's label is configurable (8b by default).
        name = next((key for line in log for key in line if key.endswith("_win_rate_decided")), "")
        win_steps, rates = series(log, name)
        if rates:
            rate_axis = reward_axis.twinx()
            rate_axis.plot(win_steps, rates, color="#c2691c", linewidth=1.2)
            rate_axis.axhline(0.5, color="#c2691c", linewidth=0.7, linestyle=":")
            rate_axis.set_ylim(0, 1)
            rate_axis.set_ylabel("win rate in training", color="#c2691c")
            rate_axis.spines[["top"]].set_visible(False)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = out.getvalue()
    return Markup(svg[svg.index("<svg") :])


def _slice_order(slices: Mapping[str, Any]) -> list[str]:
    """Put the baseline's systematic errors first and unseen wordings last: the page explains these two."""
    order = {"systematic": -1, "unseen_wording": 1}
    return sorted(slices, key=lambda name: (order.get(name, 0), name))


if __name__ == "__main__":
    raise SystemExit(main())
