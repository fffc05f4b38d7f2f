"""The rewrites that compete: fixed ones, one a sample, and draws, several a sample. `None` is a rewrite that failed."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.prompt import build_messages
from data_prep.text.normalise import normalise_line, normalise_lines
from evaluation.headroom_study.asking import Asker
from evaluation.headroom_study.words import Frequencies, context_words, join_words, words_of
from evaluation.systems import ORIGINAL, generate_in_child, model_hash
from reward.records.call import ServiceFailure
from reward.records.files import BadInput, read_jsonl
from reward.records.sample import Sample
from reward.rollouts.rollout_log import FOLDER, read_rollouts
from reward.settings.recipe import TenantSettings

# Rules that anyone can write down without training: what they gain needs no model.
CONTENT_WORDS, CONTEXT_WORDS = "rule: content words", "rule: query and context words"
RULES = (CONTENT_WORDS, CONTEXT_WORDS)
_ADDED = 5  # words of the context that the second rule adds
_ALIKE = 3  # equal answers in a row after which a rewriter counts as one that always answers the same


@dataclass
class Candidates:
    """What is retrieved with. `fixed`: system → a rewrite a sample; `draws`: source → the draws of each sample.

    `same`: of the deployed rewriter's samples, those that it answered alike each time.
    """

    fixed: dict[str, list[str | None]] = field(default_factory=dict)
    draws: dict[str, list[list[str]]] = field(default_factory=dict)
    same: int = 0


def rule_rewrites(samples: Sequence[Sample], frequencies: Frequencies) -> dict[str, list[str | None]]:
    """Return the rules' rewrites: the query without common words; the query with the context's best words behind it.

    The second is left out where no sample has a context.
    """
    content: list[str | None] = []
    widened: list[str | None] = []
    for sample in samples:
        query = sample.original_query
        words = words_of(query)
        kept = [i for i, word in enumerate(words) if not frequencies.is_common(word.text)]
        content.append(join_words(query, words, kept) if kept else query)
        added = context_words(query, sample.context.text, frequencies, _ADDED)
        widened.append(" ".join([query, *added]))
    rules = {CONTENT_WORDS: content}
    return rules if widened == [s.original_query for s in samples] else {**rules, CONTEXT_WORDS: widened}


def baseline_draws(samples: Sequence[Sample], tenant: TenantSettings, n: int) -> list[int]:
    """Return how often the deployed rewriter is asked about each sample: `n` times; once only what is unrecorded."""
    if not tenant.baseline.url:
        return [0] * len(samples)
    return [n if n > 1 else 0 if sample.candidates.baseline else 1 for sample in samples]


async def baseline_rewrites(
    samples: Sequence[Sample], asker: Asker, tenant: TenantSettings, n: int, on_answer: Callable[[], None]
) -> tuple[list[str | None] | None, list[list[str]] | None, int]:
    """Return the deployed rewriter's rewrite of each sample, its `n` draws of each, and how many it answered alike.

    The rewrite is the recorded one, else the first draw. No rewrites where nothing is recorded and the tenant has no
    service; no draws where `n` is 1 or there is no service. After `_ALIKE` equal answers the rest is taken to be equal.
    """
    recorded = [sample.candidates.baseline or None for sample in samples]
    if not tenant.baseline.url:
        return (recorded if any(recorded) else None), None, 0
    wanted = baseline_draws(samples, tenant, n)

    async def draw(sample: Sample, count: int) -> list[str]:
        answers: list[str] = []
        for number in range(count):
            if number == _ALIKE == len(answers) and len(set(answers)) == 1:
                answers *= count
                break
            answer = await asker.ask_baseline(sample, number)
            if not isinstance(answer, ServiceFailure):
                answers.append(answer)
        on_answer()
        return answers[:count]

    draws = await asyncio.gather(*(draw(sample, count) for sample, count in zip(samples, wanted, strict=True)))
    fixed = [known or (drawn[0] if drawn else None) for known, drawn in zip(recorded, draws, strict=True)]
    same = sum(len(set(drawn)) == 1 for drawn in draws)
    return fixed, (list(draws) if n > 1 else None), same if n > 1 else 0


def model_draws(
    folder: Path,
    samples: Sequence[Sample],
    tenant: TenantSettings,
    cache: Path,
    *,
    n: int,
    temperature: float,
    max_new_tokens: int,
    seed: int,
) -> list[list[str]]:
    """Draw `n` rewrites of each sample from a Hugging Face model folder, in a child process; kept in `cache`.

    Raises:
        BadInput: `folder` is no model folder, or the generation failed (names the log).
    """
    prompts = [
        json.dumps({"sample_id": sample.sample_id, "messages": build_messages(sample, tenant)}, ensure_ascii=False)
        for sample in samples
    ]
    options = {"--max-new-tokens": max_new_tokens, "--draws": n, "--temperature": temperature, "--seed": seed}
    digest = hashlib.sha256(f"{model_hash(folder)} {options}".encode())
    digest.update("\n".join(prompts).encode())
    kept = cache / f"draws_{digest.hexdigest()[:16]}.jsonl"
    if not kept.is_file():
        given = (str(part) for option in options.items() for part in option)
        generate_in_child(folder, prompts, kept, *given, module="evaluation.draw_rewrites")
    draws = {line["sample_id"]: [str(text) for text in line["rewrites"]] for _, line in read_jsonl(kept)}
    if any(len(draws.get(sample.sample_id, ())) != n for sample in samples):
        raise BadInput(f"{kept}: is not complete; delete the file and run again")
    return [draws[sample.sample_id] for sample in samples]


def recorded_draws(samples: Sequence[Sample], recording: Path, most: int) -> list[list[str]]:
    """Return the rewrites that were recorded of each sample, `most` at most, in their order.

    Args:
        recording: JSONL of `query`, `history_context` and `rewritten_query`, a line a draw; or a run's folder, whose
            logged rollouts are the draws.

    Raises:
        BadInput: a row lacks a field, or no sample has a draw.
    """
    read = _of_rollouts(recording) if (recording / FOLDER).is_dir() else _of_file(recording)
    draws = [read.get(_key(s.original_query, s.context.history_context), [])[:most] for s in samples]
    if not any(draws):
        raise BadInput(f"{recording}: records no rewrite of any of the {len(samples)} samples")
    return draws


def _of_file(path: Path) -> Mapping[tuple[str, str], list[str]]:
    draws: dict[tuple[str, str], list[str]] = {}
    for row, record in read_jsonl(path):
        for name in ("query", "rewritten_query"):
            if not isinstance(record.get(name), str):
                raise BadInput(f"{path}: row {row}: {name} is missing")
        key = _key(record["query"], str(record.get("history_context") or ""))
        draws.setdefault(key, []).append(record["rewritten_query"])
    return draws


def _of_rollouts(run: Path) -> Mapping[tuple[str, str], list[str]]:
    draws: dict[tuple[str, str], list[str]] = {}
    for rollout in read_rollouts(run):
        sample = rollout.sample
        key = _key(sample.original_query, sample.context.history_context)
        draws.setdefault(key, []).append(rollout.completion.strip())
    return draws


def _key(query: str, history: str) -> tuple[str, str]:
    return normalise_line(query), normalise_lines(history)


def original_queries(samples: Sequence[Sample]) -> dict[str, list[str | None]]:
    return {ORIGINAL: [sample.original_query for sample in samples]}
