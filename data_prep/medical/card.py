"""The data card of a medical prompt set, as Markdown. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_prep.medical.rows import MedicalRow, Refused
from data_prep.medical.sampling import Draw, stratum


@dataclass(frozen=True)
class Facts:
    """What the card tells. `files`: name → rows and SHA-256; `evaluation`: set → rows; `sft`: samples with a chain."""

    tenant: str
    files: Mapping[str, tuple[int, str]]
    draw: Draw
    validation: int
    evaluation: Mapping[str, int]
    sft: int
    without_chain: int
    refused: Sequence[Refused]
    share: float
    seed: int
    masked: str


def data_card(facts: Facts) -> str:
    """Return the card: what it is for, where it comes from, what is in it by stratum, what was left out, its limits."""
    drawn = Counter(stratum(row) for row in facts.draw.rows)
    rows = [("file", "category", "prompts", "left out")]
    rows += [
        (source, category, str(drawn[source, category]), str(facts.draw.left_out[source, category]))
        for source, category in sorted(drawn | facts.draw.left_out)
    ]
    reasons = Counter(refused.reason for refused in facts.refused)
    share, risky = facts.draw.high_risk_share, sum(row.high_risk for row in facts.draw.rows)
    lines = [
        f"# Prompts of {facts.tenant} for reinforcement learning",
        "",
        "Questions that a medical assistant answers while it is trained, each with its stratum. They hold no answer: "
        "the policy writes its own, and rules and a teacher grade it.",
        "",
        f"- training prompts: {len(facts.draw.rows)}, of them {risky} high-risk ({share:.1%}; at least "
        f"{facts.share:.0%} is required)",
        f"- validation prompts: {facts.validation}, of the same files and never trained on",
        f"- SFT samples (messages with the chain): {facts.sft}; gold rows without a chain or an answer are none: "
        f"{facts.without_chain}",
        f"- held out for the evaluation: {', '.join(f'{name} {count}' for name, count in facts.evaluation.items())}",
        f"- seed {facts.seed}; personal data masked: {facts.masked}",
        "",
        "## Files",
        *_table([("file", "rows", "SHA-256"), *((n, str(c), digest) for n, (c, digest) in facts.files.items())]),
        "",
        "## Strata of the training prompts",
        *_table(rows),
        "",
        "## Not used",
        *([f"- {count} rows: {reason}" for reason, count in reasons.most_common()] or ["- nothing"]),
        "",
        "## Limits",
        "High-risk is what the red team's file holds and what other files mark. A row's category is its file's word. "
        "Nothing here was reviewed by a physician unless the files say so.",
    ]
    return "\n".join(lines)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return [head, f"|{'---|' * len(rows[0])}", *body]


def describe(rows: Sequence[MedicalRow]) -> str:
    """Say in one line how many rows there are and how many of them are high-risk."""
    return f"{len(rows)} rows, {sum(row.high_risk for row in rows)} high-risk"
