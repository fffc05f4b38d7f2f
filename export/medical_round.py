"""Make one round of the medical assistant: train, answer, grade, compare with SFT, and leave every artefact.

    python -m export.medical_round --round r1 --root outputs/medical --sft outputs/sft/medical/final \\
        --teacher deepseek_v3 [--algorithm grpo] [hydra overrides]

Needs `<root>/data/rl` (`data_prep.build_medical`). The same command resumes a round that was killed: the trainer goes
on from its last checkpoint, the teacher is asked nothing twice.

Exit code 0: the round is complete; 1: it is, and a rollback to SFT is advised; 2: bad input; others are the trainer's
(`recipes.launch`: 75 services failed, 76 budget spent, 77 unhealthy, 130 interrupted).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from data_prep.build_medical import CARD_FILE, PROMPTS_FILE
from evaluation.medical.comparison import Advice, SetComparison, advise, compare
from evaluation.medical.grading import GradedAnswer, generate_answers, grade_answers
from evaluation.medical.report import report
from evaluation.medical.round_files import (
    CONFLICTS_FILE,
    JUDGEMENTS_FILE,
    KL_FILE,
    REWARDS_FILE,
    RULES_FILE,
    USAGE_FILE,
    read_conflicts,
    read_suggestions,
    write_conflicts,
    write_kl,
    write_rewards,
)
from evaluation.medical.samples_report import inspect_answers, write_samples
from export.medical.layout import ADVICE_FILE, ANSWERS_FILE, PLANTED_FILE, RECIPE_FILE, ROUND_FILE, Round
from export.medical.value_head import critic_of, save_value_head
from reward.export_ledger import export_teacher
from reward.judge.teacher import Teacher, teaching
from reward.medical.planted import load_planted, score_planted
from reward.medical.rules_page import rules_page
from reward.records.commands import command
from reward.records.files import BadInput, file_sha256, write_atomically, write_json
from reward.records.sample import Sample, read_samples
from reward.rollouts.rollout_log import read_rollouts
from reward.rollouts.saturation import saturation
from reward.settings.recipe import RewriterSettings, parse_settings

SETS = ("dev", "test", "gold", "red")
ROLLBACK_ADVISED = 1


@command
def main(argv: list[str] | None = None) -> int:
    args, overrides = _parse_args(argv)
    one = Round(args.root, args.round)
    _check(one, args.sft)
    code = train(one, args.algorithm, args.sft, args.teacher, overrides)
    if code != 0:
        print(f"round {one.name}: the trainer ended with exit code {code}; the same command resumes", file=sys.stderr)
        return code
    advice = finish(one, args.sft)
    print(f"round {one.name}: {'ROLL BACK to SFT' if advice.rollback else 'no rollback advised'}: {advice.reason}")
    print(f"report: {one.report}")
    return ROLLBACK_ADVISED if advice.rollback else 0


def train(one: Round, algorithm: str, sft: Path, teacher: str, overrides: Sequence[str]) -> int:
    """Run the recipe and return the trainer's exit code; a finished run is not repeated."""
    settings = {
        "teacher": teacher,
        "recipe.data_dir": one.data,
        "recipe.output_dir": one.run,
        "recipe.start_from": sft,
        "rewriter.ledger.path": one.ledger,
        "rewriter.ledger.run_id": one.name,
        "recipe.machine.loggers": "[console,file]",
    }
    named = {override.lstrip("+").partition("=")[0] for override in overrides}
    ours = [f"{key}={value}" for key, value in settings.items() if key not in named]
    command_line = [sys.executable, "-m", "recipes.launch", f"medical_{algorithm}", *ours, *overrides]
    return subprocess.run(command_line, env=dict(os.environ), check=False).returncode


def finish(one: Round, sft: Path) -> Advice:
    """Make everything that follows training, from what the run has left; every file is replaced whole.

    Raises:
        BadInput: a file of the run or of the data cannot be used.
    """
    settings, longest = _recorded(one.run)
    one.model.mkdir(parents=True, exist_ok=True)
    head_step = _keep_weights(one)
    shutil.copyfile(one.run / RECIPE_FILE, one.model / RECIPE_FILE)

    # What training did.
    rollouts = write_rewards(one.model / REWARDS_FILE, read_rollouts(one.run))
    steps = write_kl(one.model / KL_FILE, one.run, one.name)

    # Both versions on the held-out questions.
    answers = asyncio.run(_answers(one, settings, sft, longest))
    comparisons = [compare(name, *of_set) for name, of_set in answers.items()]
    graded = [answer for both in answers.values() for version in both for answer in version]
    write_atomically(one.model / ANSWERS_FILE, (answer.model_dump_json(by_alias=True) for answer in graded))

    # What the teacher said and cost, where it and the rules are at odds, and what a reward is.
    opinions, usage = export_teacher(one.ledger, one.data / JUDGEMENTS_FILE, one.model / USAGE_FILE, one.name)
    suggested = read_suggestions(one.data / JUDGEMENTS_FILE)
    write_samples(one.samples.parent, one.samples.name, inspect_answers(graded, suggested, settings.medical))
    conflicts = [*read_conflicts(one.run, settings.medical), *(answer for answer in graded if answer.conflict)]
    of_round = write_conflicts(one.data / CONFLICTS_FILE, one.name, conflicts)
    for folder in (one.data, one.model):  # the next round's rules may be others
        write_atomically(folder / RULES_FILE, [rules_page(settings.medical).rstrip("\n")])

    # The planted bad answers, and what each rule still teaches.
    planted = score_planted(load_planted(), settings.medical)
    write_atomically(one.model / PLANTED_FILE, (score.model_dump_json() for score in planted))
    trained = (rollout for rollout in read_rollouts(one.run) if rollout.sample.metadata.split == "train")
    rules = saturation(trained, settings.medical)

    # The report and the advice.
    advice = advise(comparisons)
    facts = _facts(settings, rollouts, steps, opinions, float(usage["cny"].sum()), of_round)
    write_atomically(one.report, [report(one.name, comparisons, advice, facts, planted, rules)])
    target = str(sft) if advice.rollback else None
    write_json(one.model / ADVICE_FILE, {"rollback": advice.rollback, "reason": advice.reason, "roll_back_to": target})
    write_manifest(one, comparisons, advice, head_step)
    return advice


async def _answers(
    one: Round, settings: RewriterSettings, sft: Path, longest: int
) -> dict[str, tuple[list[GradedAnswer], list[GradedAnswer]]]:
    """Return SFT's and RL's graded answers on every set that holds a question."""
    samples: dict[str, list[Sample]] = {}
    for name in SETS:
        path = one.data / f"eval_{name}.jsonl"
        if path.is_file() and path.stat().st_size:
            samples[name] = read_samples(path)
    if not samples:
        raise BadInput(f"{one.data}: no eval_<set>.jsonl holds a question; build it with data_prep.build_medical")
    everyone = [sample for some in samples.values() for sample in some]
    written: dict[str, list[str]] = {}
    for version, folder in (("sft", sft), ("rl", one.model / "policy")):
        written[version] = generate_answers(folder, everyone, settings.tenant, one.run / "answers", longest)

    async def graded(teacher: Teacher | None) -> dict[str, tuple[list[GradedAnswer], list[GradedAnswer]]]:
        found, start = {}, 0
        for name, some in samples.items():
            part = slice(start, start + len(some))
            start += len(some)
            both = [
                await grade_answers(name, version, some, written[version][part], settings.medical, teacher)
                for version in ("sft", "rl")
            ]
            found[name] = (both[0], both[1])
        return found

    if settings.teacher is None:
        return await graded(None)
    async with teaching(settings.teacher, settings.ledger, settings.tenant.tenant_id) as teacher:
        return await graded(teacher)


def _keep_weights(one: Round) -> str | None:
    """Keep the policy as a model folder, its adapter where it was trained by LoRA, and the critic's value head.

    Returns:
        The step that the value head is of; None for a run without a critic.

    Raises:
        BadInput: the checkpoint cannot be merged, or the critic's shards hold no head.
    """
    merge = [sys.executable, "-m", "export.merge", "--checkpoint", str(one.run), "--out", str(one.model / "policy")]
    done = subprocess.run(
        [*merge, "--adapter", str(one.model / "adapter")], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        lines = [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.strip()]
        raise BadInput(f"{one.run}: {(lines or ['export.merge failed'])[-1]}")
    critic = critic_of(one.run)
    if critic is None:
        return None
    save_value_head(critic, one.model / "value_head.safetensors")
    return critic.parent.name


def _recorded(run: Path) -> tuple[RewriterSettings, int]:
    """Return the settings that the run was made with, and the most new tokens of an answer."""
    config = OmegaConf.load(run / RECIPE_FILE)
    node = OmegaConf.to_container(config.rewriter, resolve=True)
    assert isinstance(node, dict)
    settings = parse_settings({str(key): value for key, value in node.items()}, str(run / RECIPE_FILE))
    return settings, int(config.recipe.rl.max_new_tokens)


def _facts(
    settings: RewriterSettings, rollouts: int, steps: int, opinions: int, cny: float, conflicts: int
) -> list[tuple[str, str]]:
    teacher = settings.teacher
    return [
        ("formula", settings.medical.formula),
        ("teacher", f"{teacher.service}, template {teacher.template}" if teacher else "none: rules alone"),
        ("training", f"{rollouts} rollouts, {steps} steps"),
        ("teacher's opinions in the ledger", f"{opinions}; this round cost ¥{cny:.2f}"),
        ("strong conflicts of teacher and rules", str(conflicts)),
    ]


def write_manifest(
    one: Round, comparisons: Sequence[SetComparison], advice: Advice, head_step: str | None = None
) -> None:
    """Write `round.json`, the last file of a round: hashes of every artefact and the main numbers.

    Raises:
        BadInput: an artefact is missing.
    """
    files = artefacts(one)
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        raise BadInput(f"round {one.name}: lacks {', '.join(missing)}")
    policy = sorted(path for path in (one.model / "policy").iterdir() if path.is_file())
    weights = [*policy, *sorted((one.model / "adapter").glob("*")), *one.model.glob("value_head.safetensors")]
    violations = {c.name: {"sft": c.before.violations, "rl": c.after.violations} for c in comparisons}
    write_json(
        one.model / ROUND_FILE,
        {
            "round": one.name,
            "violations_per_100": violations,
            "rollback": advice.rollback,
            "reason": advice.reason,
            "value_head_of": head_step,
            "files": {str(path.relative_to(one.root)): file_sha256(path) for path in [*files, *weights]},
        },
    )


def artefacts(one: Round) -> list[Path]:
    """Return the files that a complete round leaves, beside its weights and the teacher's archive."""
    names = (REWARDS_FILE, KL_FILE, USAGE_FILE, ANSWERS_FILE, PLANTED_FILE, ADVICE_FILE, RECIPE_FILE, RULES_FILE)
    data = (PROMPTS_FILE, CARD_FILE, JUDGEMENTS_FILE, CONFLICTS_FILE, RULES_FILE)
    reports = [one.report, one.samples.with_suffix(".md"), one.samples.with_suffix(".csv")]
    return [*(one.model / name for name in names), *(one.data / name for name in data), *reports]


def _check(one: Round, sft: Path) -> None:
    if not re.fullmatch(r"[\w.-]+", one.name):
        raise BadInput(f"--round {one.name!r}: expected letters, digits, dots and hyphens")
    for path, remedy in (
        (one.data / PROMPTS_FILE, "build it with data_prep.build_medical"),
        (sft / "config.json", "train it with recipes/medical_sft.sh"),
    ):
        if not path.is_file():
            raise BadInput(f"{path}: no such file; {remedy}")


def _parse_args(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m export.medical_round", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--round", required=True, help="name of the round, e.g. r1")
    parser.add_argument("--root", type=Path, default=Path("outputs/medical"), help="default: %(default)s")
    parser.add_argument("--sft", type=Path, required=True, metavar="DIR", help="the SFT model: start and reference")
    parser.add_argument("--teacher", default="none", help="a profile of recipes/config/teacher (default: none)")
    parser.add_argument("--algorithm", choices=("ppo", "grpo", "rloo"), default="ppo", help="default: %(default)s")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="of the recipe, e.g. machine=cpu model=tiny")
    args = parser.parse_intermixed_args(argv)
    return args, args.overrides


if __name__ == "__main__":
    raise SystemExit(main())
