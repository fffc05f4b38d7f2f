"""Small curves of a training as inline SVG: one question each, at most four lines."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from markupsafe import Markup

from evaluation.texts import Texts
from evaluation.training_log import series

COLOURS = ("#2257a4", "#c2691c", "#1f7a4d", "#8a5aa8")
_MOST_POINTS = 240  # of a line: more cannot be seen at this size


@dataclass(frozen=True)
class Curve:
    """A drawn curve: its title, its legend of (label, colour), and the picture."""

    title: str
    legend: Sequence[tuple[str, str]]
    svg: Markup


@dataclass(frozen=True)
class _Plan:
    """`lines`: the metric of each line; a metric that was never logged is left out. `summed`: shown as the sum so far.
    `half`: a line at 0.5, and an axis from 0 to 1. `zeros`: a line that is 0 throughout is shown too. `expected`: every
    training can log it."""

    name: str
    lines: Mapping[str, str]  # metric → key of its label
    summed: bool = False
    half: bool = False
    zeros: bool = False
    expected: bool = False


def draw_curves(log: list[dict[str, Any]], texts: Texts) -> list[Curve]:
    """Draw what was logged; empty without a logged step."""
    curves = (_draw(plan, log, texts) for plan in _plans(log))
    return [curve for curve in curves if curve is not None]


def curves_without_data(log: list[dict[str, Any]], texts: Texts) -> list[str]:
    """Name the curves that every training can log and this one has not."""
    plans = (plan for plan in _plans(log) if plan.expected)
    return [texts(f"curve.{p.name}") for p in plans if not any(series(log, metric)[0] for metric in p.lines)]


def _plans(log: Sequence[Mapping[str, Any]]) -> list[_Plan]:
    # The labels of policy and baseline are configurable (8b and 32b by default).
    names = {key for line in log for key in line}
    policy = next((n.removesuffix("_win_rate_decided") for n in names if n.endswith("_win_rate_decided")), "")
    baselines = (n.removesuffix("_avg_top1") for n in names if n.endswith("_avg_top1") and "/" not in n)
    baseline = next((name for name in baselines if policy and name != policy), "")
    return [
        _Plan("reward", _own("avg_reward", "validation/avg_reward"), zeros=True, expected=True),
        _Plan("win_rate", {f"{policy}_win_rate_decided": "win_rate_decided"}, half=True),
        _Plan("parts", _own("reward_retrieval", "reward_judge", "reward_bonus")),
        _Plan("penalties", _own("reward_length_penalty", "reward_recital_penalty", "reward_idle_penalty")),
        _Plan("scores", {f"{policy}_avg_top1": "policy_top1", f"{baseline}_avg_top1": "baseline_top1"}),
        _Plan("judge", {f"{policy}_judge_score": "policy_judge", f"{baseline}_judge_score": "baseline_judge"}),
        _Plan("kl", _own("actor/kl_loss", "actor/reward_kl_penalty", "actor/ppo_kl", "rollout_corr/kl"), expected=True),
        _Plan("entropy", _own("actor/entropy"), expected=True),
        _Plan("length", _own("rewrite_length", "response_length/mean"), expected=True),
        _Plan("unusable", _own("gated", "abstained"), zeros=True, expected=True),
        _Plan("clip", _own("actor/pg_clipfrac")),
        _Plan("value", _own("critic/vf_loss")),
        _Plan("cost", _own("cost_cny"), summed=True, expected=True),
    ]


def _own(*metrics: str) -> dict[str, str]:
    return {metric: metric for metric in metrics}


def _draw(plan: _Plan, log: list[dict[str, Any]], texts: Texts) -> Curve | None:
    lines = [(label, *series(log, metric)) for metric, label in plan.lines.items()]
    lines = [(label, steps, values) for label, steps, values in lines if any(values) or (steps and plan.zeros)]
    if plan.summed:
        lines = [(label, steps, list(accumulate(values))) for label, steps, values in lines]
    if not lines:
        return None
    # Imported here: a report without a training log needs no plotting library.
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": plan.name, "font.family": "sans-serif", "font.size": 8}
    ):
        figure = Figure(figsize=(3.2, 1.7))
        axis = figure.add_axes((0.16, 0.14, 0.81, 0.82))  # the same for all, so that the steps stand in line
        for (_, steps, values), colour in zip(lines, COLOURS, strict=False):
            marker = "o" if len(steps) < 3 else ""
            axis.plot(*_thinned(steps, values), color=colour, linewidth=0.7, alpha=0.35, marker=marker, markersize=3)
            axis.plot(*_thinned(steps, _smoothed(values)), color=colour, linewidth=1.5)
        if plan.half:
            axis.axhline(0.5, color="#5b6675", linewidth=0.7, linestyle=":")
            axis.set_ylim(0, 1)
        axis.spines[["top", "right"]].set_visible(False)
        axis.locator_params(axis="x", nbins=5, integer=True)
        axis.locator_params(axis="y", nbins=5)
        axis.grid(axis="y", color="#dfe4ea", linewidth=0.6)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    title = texts(f"curve.{plan.name}")
    legend = [(texts(f"series.{label}"), colour) for (label, _, _), colour in zip(lines, COLOURS, strict=False)]
    return Curve(title, legend, _inline(out.getvalue(), title))


def _thinned(steps: Sequence[int], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return the points, or the means of equal runs of them where there are too many to be told apart."""
    run = -(-len(steps) // _MOST_POINTS)
    cut = [slice(start, start + run) for start in range(0, len(steps), run)]
    return [_mean(steps[part]) for part in cut], [_mean(values[part]) for part in cut]


def _smoothed(values: Sequence[float]) -> list[float]:
    """Return the mean of each value and its neighbours, a tenth of the steps wide."""
    reach = len(values) // 20
    return [_mean(values[max(0, i - reach) : i + reach + 1]) for i in range(len(values))]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _inline(svg: str, title: str) -> Markup:
    """Return the picture without what only a file of its own needs: prologue, metadata, names of its groups."""
    body = re.sub(r'<g id="[^"]*">', "<g>", svg[svg.index("<svg") :])
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    return Markup(body.replace("<svg ", Markup('<svg role="img" aria-label="{}" ').format(title), 1))
