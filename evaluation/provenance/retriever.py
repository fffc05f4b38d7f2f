"""What identifies the retriever that an evaluation ran on, and whether training had the same."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from evaluation.provenance.training_run import TrainingRun
from reward.records.call import content_key
from reward.settings.services import RagSettings


def describe_retriever(
    rag: RagSettings, index: Mapping[str, Any] | None, scorers: list[str], runs: Mapping[str, TrainingRun | None]
) -> dict[str, Any]:
    """Return `provenance.retriever`.

    Args:
        scorers: the rerankers that the answers name.
        runs: model -> the training run that it comes from.

    Returns:
        `fingerprint` over all that follows: `kb_name`, `kb_version`, `scorers`, `index`; and `training`: model -> what
        its training recorded of the same, with `changed`: what differs, in words; `asked`: whether training asked a
        retriever at all. None where nothing is recorded.
    """
    identity = {"kb_name": rag.kb_name, "kb_version": rag.kb_version, "scorers": scorers, "index": index}
    return {
        "fingerprint": content_key("retriever", identity)[:16],
        **identity,
        "training": {name: _recorded(run, rag, scorers, index) if run else None for name, run in runs.items()},
    }


def _recorded(
    last: TrainingRun, rag: RagSettings, scorers: list[str], index: Mapping[str, Any] | None
) -> dict[str, Any]:
    run = last.with_retriever
    if run is None:
        return {"asked": False, "changed": []}
    services, met = run.services, run.indices
    compared = {"kb_name": (services.kb_name, rag.kb_name), "kb_version": (services.kb_version, rag.kb_version)}
    if run.reranker:
        compared["reranker"] = (run.reranker, ", ".join(scorers))
    changed = [
        f"{what}: {before!r} in training, {now!r} here" for what, (before, now) in compared.items() if before != now
    ]
    changed += [_difference(before, now, "in training", "later in training") for before, now in pairwise(met)]
    if met and met[-1] != index:
        changed.append(_difference(met[-1], index, "in training", "here"))
    return {
        "asked": True,
        "kb_name": services.kb_name,
        "kb_version": services.kb_version,
        "reranker": run.reranker or None,
        "index": met[-1] if met else None,
        "changed": changed,
    }


def _difference(
    before: Mapping[str, Any] | None, now: Mapping[str, Any] | None, when_before: str, when_now: str
) -> str:
    """Say how two descriptions of an index differ, None where the service gave none."""
    if before is None or now is None:
        unknown = when_before if before is None else when_now
        return f"index: the service did not describe it {unknown}"
    fields = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    told = ", ".join(f"{name} {before.get(name)!r} {when_before}, {now.get(name)!r} {when_now}" for name in fields)
    return f"index: {told}"
