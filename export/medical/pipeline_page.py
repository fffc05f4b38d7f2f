"""How a release of the medical assistant was made, as Markdown. Pure but for the recipe that it reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from export.medical.layout import RECIPE_FILE, Round


def pipeline_page(one: Round, version: str, record: Mapping[str, Any]) -> str:
    """Return `rl_pipeline.md`: data, reward, teacher, training, evaluation, and how to go back."""
    config = OmegaConf.load(one.model / RECIPE_FILE)
    rewriter, rl = config.rewriter, config.recipe.rl
    teacher = rewriter.get("teacher")
    violations = [
        f"| {name} | {found['sft']:.1f} | {found['rl']:.1f} |" for name, found in record["violations_per_100"].items()
    ]
    asked = f"{teacher.model} {teacher.version}, template {teacher.template}" if teacher else "none: the rules alone"
    lines = [
        f"# {version}: how it was made",
        "",
        f"Round {one.name}. Every file of the round and its SHA-256: round.json; of this bundle: release.json.",
        "",
        "| step | what |",
        "|---|---|",
        "| prompts | `data_prep.build_medical`: stratified, at least 40 % high-risk; DATA_CARD.md beside them |",
        f"| start and reference | {config.recipe.start_from} |",
        f"| algorithm | {config.algorithm.adv_estimator}, LoRA rank {rl.lora_rank}, {rl.epochs} epochs of "
        f"{rl.prompts_per_step} prompts a step, learning rate {rl.actor_lr:g} |",
        f"| reward | {rewriter.medical.formula}, see reward_rules.md |",
        f"| teacher | {asked}; every opinion: teacher_judgements.jsonl |",
        "| evaluation | eval_report.md; single samples: the sample report |",
        "",
        "## Violations per 100 answers",
        "",
        "| set | SFT | RL |",
        "|---|---|---|",
        *violations,
        "",
        "## Going back",
        "",
        f"Serve the SFT model again: {config.recipe.start_from}. A rollback is advised as soon as the red team's risk "
        "rises (rollback_advice.json of a round); a round with that advice is not released.",
        "",
        "## Making it again",
        "",
        f"    python -m export.medical_round --round {one.name} --sft {config.recipe.start_from} ...",
    ]
    return "\n".join(lines)
