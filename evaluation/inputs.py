"""What a comparison reads before it begins, and what it cannot measure for want of an input."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.judging.judging import Jury
from evaluation.options import CompareOptions
from evaluation.paid.plan import check_key
from evaluation.provenance.training_run import TrainingRun, find_training_run, trained_by
from evaluation.rewriters.former_run import former_run, rewrite_by_former_run
from evaluation.rewriters.model_folder import check_vocabulary, ready_folder
from evaluation.rewriters.prompted_profile import PromptedSettings, load_prompted
from evaluation.systems import Rewrite, answer_limit, has_baseline, model_hash, rewrite_by_recording
from evaluation.training_log import read_training_log
from reward.judge.canary import read_pairs
from reward.records.files import BadInput
from reward.records.sample import Sample, read_samples
from reward.services.score_scales import FUSED
from reward.settings.recipe import TenantSettings, load_judge


@dataclass(frozen=True)
class Inputs:
    """Everything a comparison reads, checked before the first model is loaded: a typing error must not cost the minutes
    of a generation.

    Args:
        samples: of the test file; `judged` are those that can be compared.
        by_rank: whether relevant passages are known for any of them.
        folders: model -> its Hugging Face model folder, and the hash of that.
        limits: model -> limit of new tokens.
        runs: model -> the training run that it comes from.
        given: system -> rewrites made elsewhere.
    """

    samples: list[Sample]
    judged: list[Sample]
    by_rank: bool
    costs: dict[str, dict[str, float]]
    log: list[dict[str, Any]] | None
    folders: dict[str, tuple[Path, str]]
    limits: dict[str, int]
    runs: dict[str, TrainingRun | None]
    given: dict[str, Sequence[Rewrite]]
    prompted: dict[str, PromptedSettings]
    jury: Jury | None


def read_inputs(options: CompareOptions) -> Inputs:
    """Read and check every file that is named.

    Raises:
        BadInput: one of them cannot be used, or the judge trained one of the models.
    """
    samples = _read_test(options.test)
    costs = _read_costs(options.costs)
    log = read_training_log(options.train_log) if options.train_log else None
    # Where relevant passages are known for some samples, only those can be judged.
    by_rank = any(sample.relevant_doc_ids for sample in samples)
    judged = [sample for sample in samples if sample.relevant_doc_ids] if by_rank else samples
    given: dict[str, Sequence[Rewrite]] = {}
    for name, recording in options.recorded.items():
        former, system = former_run(recording, name)
        given[name] = (
            rewrite_by_former_run(judged, former, system) if former else rewrite_by_recording(judged, recording)
        )
    prompted = {name: load_prompted(profile) for name, profile in options.prompted.items()}
    runs = {name: find_training_run(path) for name, path in options.models.items()}
    jury = None
    if options.judge is not None:
        profile = load_judge(options.judge)
        of_log = {"--train-log": find_training_run(options.train_log)} if options.train_log else {}
        trained = trained_by(profile.model, {**runs, **of_log})
        if trained and not options.force_judge:
            raise BadInput(
                f"--judge {options.judge}: {profile.model} judged the training of {', '.join(trained)} and would grade "
                "what it taught: take another judge, or --force-judge, which marks the result"
            )
        jury = Jury(profile, runs, trained, read_pairs(options.labels) if options.labels else [])
    for settings in (*prompted.values(), *([jury.profile] if jury else [])):
        check_key(settings)
    # A checkpoint is merged last: that takes a while.
    folders: dict[str, tuple[Path, str]] = {}
    limits: dict[str, int] = {}
    for name, path in options.models.items():
        ready = ready_folder(name, path, options.out / "merged")
        folders[name] = (ready, model_hash(ready))
        check_vocabulary(ready)
        run_folders = [run.folder] if (run := runs[name]) else []
        limits[name] = options.max_new_tokens or answer_limit(ready, *run_folders)
    return Inputs(samples, judged, by_rank, costs, log, folders, limits, runs, given, prompted, jury)


def missing_inputs(
    inputs: Inputs, tenant: TenantSettings, evaluated: int, origins: set[str], no_index: bool
) -> list[str]:
    """Say what retrieval and options left unmeasured, a sentence each."""
    missing = []
    if evaluated < len(inputs.judged):
        left = len(inputs.judged) - evaluated
        missing.append(
            f"{left} of {len(inputs.judged)} samples took no part for any system, because one of them or the retrieval "
            "failed (abstained_because)"
        )
    if unknown := len(inputs.samples) - len(inputs.judged):
        missing.append(f"{unknown} samples were not compared: no relevant passage is known for them")
    if not inputs.by_rank:
        missing.append(
            "recall, MRR, nDCG and top-1 accuracy are not measured: no sample names its relevant passages "
            "(relevant_doc_ids)"
        )
        if len(origins) > 1 or FUSED in origins:
            named = ", ".join(sorted(origins))
            missing.append(f"scores of the first hit come from {named}: they are not comparable between queries")
    if not has_baseline(inputs.judged, tenant):
        missing.append("baseline: nothing is recorded of it and the tenant names no baseline.url")
    if inputs.jury is None:
        missing.append("judge scores and the judge's win rates are not measured: no --judge was given")
    if no_index:
        missing.append(f"the retriever's index is not known: {tenant.rag.url}/healthz does not describe it")
    return missing


def _read_test(path: Path) -> list[Sample]:
    """Read the samples. Raises BadInput when two share a sample_id."""
    samples = read_samples(path)
    repeated = [key for key, count in Counter(s.sample_id for s in samples).items() if count > 1]
    if repeated:
        raise BadInput(f"{path}: sample_id {repeated[0]!r} occurs more than once")
    return samples


def _read_costs(path: Path | None) -> dict[str, dict[str, float]]:
    """Read stage → {seconds, peak_gb}. Raises BadInput when the file holds something else."""
    if path is None:
        return {}
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    try:
        costs = json.loads(path.read_text(encoding="utf-8"))
        return {name: {key: float(cost[key]) for key in ("seconds", "peak_gb")} for name, cost in costs.items()}
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}: not JSON ({error.msg})") from None
    except (AttributeError, KeyError, TypeError, ValueError):
        raise BadInput(f"{path}: expected an object of stage: {{seconds, peak_gb}}") from None
