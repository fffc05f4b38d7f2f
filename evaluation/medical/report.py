"""The evaluation report of one round as Markdown: both versions on every set, worsened samples marked. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.markdown_table import shorten, table_head, table_row
from evaluation.medical.comparison import Advice, Pair, SetComparison, SetMetrics
from reward.medical.completion import split
from reward.medical.planted import PlantedScore
from reward.rollouts.saturation import RuleSaturation

NOTICE = (
    "> 安全提示 / Safety notice: 本报告评估的模型不能替代医生的诊断与治疗；急症请立即就医或拨打 120。"
    "What these models write is no medical advice."
)
MOST_WORSE = 50  # samples shown


def report(
    round_name: str,
    comparisons: Sequence[SetComparison],
    advice: Advice,
    facts: Sequence[tuple[str, str]],
    planted: Sequence[PlantedScore] = (),
    rules: Sequence[RuleSaturation] = (),
) -> str:
    """Return the report.

    Args:
        facts: name and value of what the round is made of, in the order shown.
        planted: the planted bad answers, as the round's rules score them.
        rules: what each rule still teaches, over the round's rollouts.
    """
    verdict = "**ROLL BACK to SFT**" if advice.rollback else "no rollback advised"
    lines = [
        f"# Evaluation of round {round_name}",
        "",
        NOTICE,
        "",
        f"Advice: {verdict}: {advice.reason}.",
        "",
        *(f"- {name}: {value}" for name, value in facts),
        "",
        "## SFT and RL",
        "",
        "A violation is an answer that endangers the patient by the rules (a missed emergency, risky advice, help with "
        "harm, care talked out of). Useless: a refusal, a false alarm, a copied question, no answer. Rewards are those "
        "of the round's formula.",
        "",
        *table_head(
            "set", "version", "answers", "violations / 100", "useless / 100", "chain", "emergency", "risk", "reward",
            "teacher", "flagged", "rules only",
        ),
    ]  # fmt: skip
    for one in comparisons:
        lines += [_row(one.name, "SFT", one.before), _row(one.name, "RL", one.after)]
    lines += [
        "",
        "## Changes",
        "",
        *table_head("set", "new violations", "ended", "p", "reward RL − SFT [95 %]", "worse"),
    ]
    for one in comparisons:
        change = "-"
        if one.difference is not None:
            mean, interval = one.difference
            change = f"{mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
        share = f"{len(one.worse)} of {len(one.pairs)}"
        lines.append(
            table_row(one.name, str(one.new_violations), str(one.ended_violations), f"{one.p:.2g}", change, share)
        )
    lines += _planted(planted) + _rules(rules)
    lines += ["", "## Worsened samples", ""]
    worse = [(one.name, pair) for one in comparisons for pair in one.worse]
    if not worse:
        lines.append("None.")
    else:
        lines += table_head("set", "⚠ how", "question", "SFT's answer", "RL's answer", "teacher on RL")
        lines += [_worse_row(name, pair) for name, pair in sorted(worse, key=_gravity)[:MOST_WORSE]]
        if len(worse) > MOST_WORSE:
            lines.append(f"\n{len(worse) - MOST_WORSE} more are in answers.jsonl.")
    return "\n".join(lines)


def _planted(planted: Sequence[PlantedScore]) -> list[str]:
    if not planted:
        return []
    passing, unseen = [one.id for one in planted if one.passes], [one.id for one in planted if not one.seen]
    return [
        "",
        "## Planted bad answers",
        "",
        f"{len(planted)} answers that must earn nothing: {len(passing)} earn more than a useless one"
        f"{': ' + ', '.join(passing) if passing else ''}; the rules miss the fault of "
        f"{', '.join(unseen) or 'none'}.",
    ]


def _rules(rules: Sequence[RuleSaturation]) -> list[str]:
    if not rules:
        return []
    quiet = [one for one in rules if one.state in ("always passes", "never passes")]
    lines = [
        "",
        "## What the rules still teach",
        "",
        f"{len(rules) - len(quiet)} of {len(rules)} rules tell answers apart. The others teach nothing in this round:",
        "",
        *table_head("rule", "rollouts", "passed", "state"),
    ]
    return lines + [table_row(one.rule, str(one.applies), f"{one.passed:.1%}", one.state) for one in quiet]


def _row(name: str, version: str, metrics: SetMetrics) -> str:
    return table_row(
        name,
        version,
        str(metrics.answers),
        f"{metrics.violations:.1f}",
        f"{metrics.useless:.1f}",
        _number(metrics.chain),
        _number(metrics.emergency),
        _number(metrics.risk),
        _number(metrics.reward),
        _number(metrics.teacher),
        "-" if metrics.flags is None else f"{metrics.flags:.0%}",
        str(metrics.rules_only),
    )


def _worse_row(name: str, pair: Pair) -> str:
    verdict = pair.after.teacher
    said = "-" if verdict is None else f"{verdict.teacher_score:.2f} {verdict.comment}"
    answers = [shorten(split(one.completion).answer or one.completion) for one in (pair.before, pair.after)]
    return table_row(name, pair.worse, shorten(pair.after.sample.original_query), *answers, shorten(said))


def _gravity(item: tuple[str, Pair]) -> tuple[bool, float]:
    """Sort dangers first, then by how far the reward fell."""
    pair = item[1]
    fall = (pair.after.reward or 0.0) - (pair.before.reward or 0.0)
    return not pair.after.danger, fall


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
