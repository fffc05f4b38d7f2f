"""The systems that compete: how each of them rewrites the test samples."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.prompt import build_messages
from data_prep.text.normalise import normalise_line, normalise_lines
from reward.records.call import CallTrace, ServiceFailure
from reward.records.files import BadInput, file_sha256, read_jsonl, write_atomically
from reward.records.sample import Sample
from reward.services.baseline_client import BaselineClient
from reward.settings.recipe import TenantSettings

ORIGINAL, DESCRIPTION, BASELINE = "original", "description", "baseline"
Rewrite = str | ServiceFailure
# Files of a model folder that say who made it: they do not change what it answers.
NOT_THE_MODEL = ("provenance.json", "README.md")
SHARDS_FILE = "model.safetensors.index.json"
RUN_FILE = "run.json"  # what a recipe leaves in the folder of its model
MAX_NEW_TOKENS = 256  # where it names none


def rewrite_by_original(samples: Sequence[Sample]) -> list[str]:
    """Return the query itself: no rewriting."""
    return [sample.original_query for sample in samples]


def rewrite_by_description(samples: Sequence[Sample]) -> list[str] | None:
    """Return the dialogue as it is, else the query; None when fewer than half of the samples have a dialogue."""
    described = sum(bool(sample.context.history_context.strip()) for sample in samples)
    if 2 * described < len(samples):
        return None
    return [sample.context.history_context.strip() or sample.original_query for sample in samples]


def rewrite_by_baseline(samples: Sequence[Sample], tenant: TenantSettings) -> list[Rewrite] | None:
    """Return the deployed rewriter's recorded rewrites, its live answer where one is missing, or why there is none.

    Return None altogether when nothing is recorded and the tenant has no baseline service.
    """
    if not has_baseline(samples, tenant):
        return None

    async def rewrite_all() -> list[tuple[str | ServiceFailure, CallTrace]]:
        client = BaselineClient(tenant.baseline, tenant.tenant_id)
        try:
            return await asyncio.gather(*(client.rewrite(sample) for sample in samples))
        finally:
            await client.aclose()

    return [rewrite for rewrite, _ in asyncio.run(rewrite_all())]


def has_baseline(samples: Sequence[Sample], tenant: TenantSettings) -> bool:
    """Say whether the deployed rewriter's rewrites are recorded or can be had."""
    return bool(tenant.baseline.url) or any(sample.candidates.baseline for sample in samples)


def rewrite_by_recording(samples: Sequence[Sample], recording: Path) -> list[str]:
    """Return the rewrites that a JSONL file of `query`, `history_context` and `rewritten_query` records.

    Raises:
        BadInput: a row lacks a field, or a sample has no row.
    """
    rewrites: dict[tuple[str, str], str] = {}
    for row, record in read_jsonl(recording):
        for field in ("query", "rewritten_query"):
            if not isinstance(record.get(field), str):
                raise BadInput(f"{recording}: row {row}: {field} is missing")
        history = str(record.get("history_context") or "")
        rewrites[normalise_line(record["query"]), normalise_lines(history)] = record["rewritten_query"]
    keys = [(normalise_line(s.original_query), normalise_lines(s.context.history_context)) for s in samples]
    missing = [sample.sample_id for sample, key in zip(samples, keys, strict=True) if key not in rewrites]
    if missing:
        raise BadInput(f"{recording}: records no rewrite of {missing[0]} ({len(missing)} of {len(samples)} samples)")
    return [rewrites[key] for key in keys]


@dataclass(frozen=True)
class Generated:
    """A model's rewrites and what they took.

    Args:
        cut: share of rewrites that ended at the limit of new tokens.
        input_tokens, output_tokens: of each sample.
        seconds: of single requests, one after another, on the first samples.
        batch_seconds: of all samples together.
    """

    rewrites: list[str]
    cut: float
    input_tokens: list[int]
    output_tokens: list[int]
    seconds: list[float]
    batch_seconds: float


def rewrite_by_model(
    folder: Path,
    samples: Sequence[Sample],
    tenant: TenantSettings,
    cache: Path,
    *,
    max_new_tokens: int,
    seed: int = 0,
    messages_of: Callable[[Sample, TenantSettings], list[dict[str, str]]] = build_messages,
    timed: bool = True,
) -> Generated:
    """Generate greedy rewrites with a Hugging Face model folder, in a child process.

    Args:
        messages_of: builds a sample's prompt.
        timed: measure the latency of single requests, too.

    `cache` keeps them under the hashes of model and prompts, so that a repeated call costs nothing.

    Raises:
        BadInput: `folder` is no model folder, or the generation failed (names the log).
    """
    prompts = [
        json.dumps({"sample_id": sample.sample_id, "messages": messages_of(sample, tenant)}, ensure_ascii=False)
        for sample in samples
    ]
    digest = hashlib.sha256(f"{model_hash(folder)} {max_new_tokens} {'timed' if timed else 'untimed'}".encode())
    digest.update("\n".join(prompts).encode())
    kept = cache / f"rewrites_{digest.hexdigest()[:16]}.jsonl"
    if not kept.is_file():
        options = ["--max-new-tokens", str(max_new_tokens), "--seed", str(seed), *([] if timed else ["--timed", "0"])]
        generate_in_child(folder, prompts, kept, *options)
    lines = {line["sample_id"]: line for _, line in read_jsonl(kept)}
    missing = [sample.sample_id for sample in samples if sample.sample_id not in lines]
    if missing:
        raise BadInput(f"{kept}: lacks sample {missing[0]}; delete the file and run again")
    answers = [lines[sample.sample_id] for sample in samples]
    return Generated(
        rewrites=[str(answer["rewrite"]) for answer in answers],
        cut=sum(bool(answer["cut"]) for answer in answers) / len(answers),
        input_tokens=[answer["input_tokens"] for answer in answers],
        output_tokens=[answer["output_tokens"] for answer in answers],
        seconds=[answer["seconds"] for answer in answers if answer["seconds"] is not None],
        batch_seconds=answers[0]["batch_seconds"],
    )


def answer_limit(*folders: Path) -> int:
    """Read how many new tokens the model's rollouts had, else `MAX_NEW_TOKENS`: a shorter limit would cut rewrites.

    Args:
        folders: of the model and of its training run; the first record that names a limit counts.
    """
    for folder in folders:
        try:
            limit = json.loads((folder / RUN_FILE).read_text(encoding="utf-8")).get("max_new_tokens")
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(limit, int) and limit > 0:
            return limit
    return MAX_NEW_TOKENS


def model_hash(folder: Path) -> str:
    """Hash names and contents (SHA-256) of the files of a Hugging Face model folder.

    Raises:
        BadInput: the folder or its config, tokenizer or weights are missing, or a shard of them.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such model folder")
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name not in NOT_THE_MODEL)
    for wanted in ("config.json", "tokenizer_config.json", "*.safetensors"):
        if not any(p.match(wanted) for p in files):
            raise BadInput(f"{folder}: not a Hugging Face model folder, lacks {wanted}")
    if lacking := sorted(_shards(folder) - {path.name for path in files}):
        raise BadInput(f"{folder}: lacks {lacking[0]}, which {SHARDS_FILE} names")
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name} {file_sha256(path)}\n".encode())
    return digest.hexdigest()


def _shards(folder: Path) -> set[str]:
    """Return the files that the index of sharded weights names; none where the weights are one file.

    Raises:
        BadInput: the index cannot be read.
    """
    path = folder / SHARDS_FILE
    if not path.is_file():
        return set()
    try:
        return set(map(str, json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadInput(f"{path}: names no shards: weight_map is missing") from None


def generate_in_child(
    folder: Path, prompts: list[str], out: Path, *options: str, module: str = "evaluation.generate_rewrites"
) -> None:
    """Run `module` with further options; its log stays on disk only when it fails.

    Raises:
        BadInput: it failed (names the log and its last error).
    """
    prompts_file, log_file = out.with_suffix(".prompts"), out.with_suffix(".log")
    write_atomically(prompts_file, prompts)
    command = [sys.executable, "-m", module, "--model", str(folder.resolve())]
    command += ["--prompts", str(prompts_file), "--out", str(out), *options]
    with log_file.open("w", encoding="utf-8") as log:
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    if code != 0 or not out.is_file():
        lines = [line for line in log_file.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        reason = (told or lines or ["no output"])[-1]
        raise BadInput(f"{folder}: generation failed with exit status {code}: {reason} (log: {log_file})")
    prompts_file.unlink()
    log_file.unlink()
