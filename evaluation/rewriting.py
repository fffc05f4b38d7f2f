"""Rewrite every sample with every system of a comparison."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from data_prep.baseline.asking import ask_each
from evaluation.efficiency import Use, use_of_baseline, use_of_model
from evaluation.options import CompareOptions
from evaluation.paid.ledger_use import read_uses
from evaluation.paid.patience import Patience
from evaluation.rewriters.prompted import REWRITE, PromptedRewriter, prompted_key, prompted_question
from evaluation.rewriters.prompted_profile import PromptedSettings
from evaluation.systems import (
    BASELINE,
    DESCRIPTION,
    ORIGINAL,
    Rewrite,
    rewrite_by_baseline,
    rewrite_by_description,
    rewrite_by_model,
    rewrite_by_original,
)
from reward.ledger.calls import Calls
from reward.ledger.ledger import Ledger
from reward.records.call import ServiceFailure
from reward.records.sample import Sample
from reward.settings.recipe import TenantSettings


@dataclass
class Rewriting:
    """What the systems wrote, and what it took.

    Args:
        rewrites: system -> rewrite of each sample; a system that cannot rewrite any is left out.
        cut: model or prompted system -> share of rewrites that ended at its limit of new tokens.
        missing: what could not be had, a sentence each.
    """

    rewrites: dict[str, Sequence[Rewrite]] = field(default_factory=dict)
    cut: dict[str, float] = field(default_factory=dict)
    uses: dict[str, Use] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def rewrite_all(
    samples: Sequence[Sample],
    tenant: TenantSettings,
    options: CompareOptions,
    *,
    given: Mapping[str, Sequence[Rewrite]],
    prompted: Mapping[str, PromptedSettings],
    folders: Mapping[str, Path],
    limits: Mapping[str, int],
    ledger: Ledger | None,
    console: Console,
) -> Rewriting:
    """Rewrite with the fixed systems, then take what is given, then ask the prompted ones, then load the models.

    Args:
        given: system -> rewrites made elsewhere.
        folders, limits: model -> Hugging Face model folder, and its limit of new tokens.
        ledger: of the prompted systems' calls.
    """
    done = Rewriting()
    done.rewrites[ORIGINAL] = rewrite_by_original(samples)
    if (described := rewrite_by_description(samples)) is not None:
        done.rewrites[DESCRIPTION] = described
    if (baseline := rewrite_by_baseline(samples, tenant)) is not None:
        done.rewrites[BASELINE] = baseline
        done.uses[BASELINE] = use_of_baseline(samples, tenant)
    for name, rewrites in given.items():
        done.rewrites[name] = rewrites
        done.uses[name] = Use(
            missing=[f"{name}: latency, tokens and cost are not measured: its rewrites were made elsewhere"]
        )
    for name, profile in prompted.items():
        assert ledger is not None
        with console.status(f"{name}: asking {profile.service} for {len(samples)} rewrites"):
            done.rewrites[name], not_asked = asyncio.run(_ask_prompted(samples, tenant, profile, options, ledger))
        done.uses[name], done.cut[name] = _use_of_prompted(name, samples, tenant, profile, options)
        if not_asked:
            done.missing.append(f"{name}: {not_asked} rewrites were not asked for: the service was gone; run it again")
    for name, folder in folders.items():
        with console.status(f"{name}: rewriting {len(samples)} queries"):
            made = rewrite_by_model(
                folder,
                samples,
                tenant,
                options.out / "cache",
                max_new_tokens=limits[name],
                seed=options.seed,
            )
        done.rewrites[name], done.cut[name] = made.rewrites, made.cut
        done.uses[name] = use_of_model(
            name, made.seconds, made.input_tokens, made.output_tokens, made.batch_seconds, options.usd_per_hour
        )
    done.missing += [sentence for use in done.uses.values() for sentence in use.missing]
    return done


async def _ask_prompted(
    samples: Sequence[Sample],
    tenant: TenantSettings,
    profile: PromptedSettings,
    options: CompareOptions,
    ledger: Ledger,
) -> tuple[list[Rewrite], int]:
    """Return the rewrites, and how many were not asked for because the service was gone."""
    rewriter = PromptedRewriter(profile, tenant, options.cny_per_usd, Calls(ledger))
    patience = Patience()

    async def ask(sample: Sample) -> Rewrite:
        async def question() -> Rewrite:
            answer = await rewriter.rewrite(sample)
            return answer.value if isinstance(answer.value, ServiceFailure) else str(answer.value[REWRITE])

        return await patience.ask(question)

    rewrites: list[Rewrite] = []
    try:
        await ask_each(samples, ask, rewrites.append, at_once=profile.max_concurrency)
    finally:
        await rewriter.aclose()
    return rewrites, patience.not_asked


def _use_of_prompted(
    name: str, samples: Sequence[Sample], tenant: TenantSettings, profile: PromptedSettings, options: CompareOptions
) -> tuple[Use, float]:
    """Return what the answers in the ledger took, and the share of them that ended at the cap on output tokens."""
    keys = [prompted_key(profile, prompted_question(profile, tenant, sample)) for sample in samples]
    uses = list(read_uses(options.ledger_file, keys).values())
    if not uses:
        return Use(missing=[f"{name}: latency, tokens and cost are not measured: nothing was answered"]), 0.0
    known = [use for use in uses if not use.estimated]
    missing = []
    if len(known) < len(uses):
        missing.append(f"{name}: tokens of {len(uses) - len(known)} of {len(uses)} answers are not reported: left out")
    if profile.price is None:
        missing.append(f"{name}: cost is not known: its profile names no price")
    use = Use(
        seconds=[use.seconds for use in uses],
        measured_as=f"calls to {profile.service}, up to {profile.max_concurrency} at a time, without queueing",
        input_tokens=[use.input_tokens for use in known],
        output_tokens=[use.output_tokens for use in known],
        usd_per_1000=1000 * sum(use.usd for use in known) / len(known) if profile.price and known else None,
        missing=missing,
    )
    return use, sum(use.output_tokens >= profile.max_output_tokens for use in known) / max(1, len(known))
