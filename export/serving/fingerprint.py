"""A model's fingerprint: its greedy answers to a few fixed prompts, by which a server shows that it serves that model.

It is recorded when a model is first served, under the hash of the model and of what it is asked, and compared at every
later start: wrong weights, a broken kernel, another quantisation or vLLM answer otherwise.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

from data_prep.prompt import build_messages
from export.serving.rewriters import Rewriter, as_trained
from reward.records.files import BadInput, write_json
from reward.records.sample import Context, Metadata, Sample
from reward.settings.recipe import Language, TenantSettings

FOLDER = "fingerprints"
# Greedy answers of one model differ between cards where two tokens are nearly as likely: so many may.
LEAST_AGREEMENT = 0.75
_PROMPTS: dict[Language, tuple[tuple[str, str, str, str], ...]] = {  # query, profile, summary, dialogue
    "zh": (
        ("这个怎么吃", "", "用户在咨询鱼油", ""),
        ("多少钱", "36岁男性", "", "用户: 在吗\n助手: 您好，请问想了解什么？"),
        ("孕妇可以用吗", "", "用户在咨询益生菌", ""),
        ("跟上次那个有什么区别", "45岁女性", "用户比较过两种产品", ""),
        ("保质期多久", "", "", ""),
        ("有没有适合新手的", "22岁学生", "", ""),
        ("没效果怎么办", "", "用户已使用一个月", ""),
        ("怎么报名", "", "", "用户: 有课程吗\n助手: 有的，分线上和线下。"),
    ),
    "en": (
        ("how do I take it", "", "The user asks about fish oil", ""),
        ("what does it cost", "man, 36", "", "User: hello\nAssistant: What would you like to know?"),
        ("is it safe when pregnant", "", "The user asks about probiotics", ""),
        ("how is it different from the other one", "woman, 45", "The user compared two products", ""),
        ("how long does it keep", "", "", ""),
        ("anything for beginners", "student, 22", "", ""),
        ("it does not work", "", "The user has used it for a month", ""),
        ("how do I sign up", "", "", "User: are there courses\nAssistant: Yes, online and on site."),
    ),
}


class BadFingerprint(Exception):
    """A server that does not answer like the model that it should serve: one line."""


def fingerprint_samples(tenant: TenantSettings) -> list[Sample]:
    """Return the fixed prompts in the tenant's language."""
    return [
        Sample(
            sample_id=f"fingerprint_{number}",
            original_query=query,
            context=Context(user_profile=profile, history_summary=summary, history_context=dialogue),
            metadata=Metadata(tenant_id=tenant.tenant_id),
        )
        for number, (query, profile, summary, dialogue) in enumerate(_PROMPTS[tenant.language])
    ]


async def take_fingerprint(rewriter: Rewriter, tenant: TenantSettings) -> list[str]:
    """Ask the fixed prompts and return the answers in their order.

    Raises:
        BadFingerprint: a call failed, or not one answer is a text.
    """
    answers = await asyncio.gather(*(rewriter.rewrite(sample) for sample in fingerprint_samples(tenant)))
    failures = [answer.failure for answer in answers if answer.failure not in ("", "empty")]
    if failures:
        raise BadFingerprint(f"{len(failures)} of {len(answers)} fixed prompts got no answer ({failures[0]})")
    if not any(answer.text for answer in answers):
        raise BadFingerprint("every answer to the fixed prompts is empty")
    return [answer.text for answer in answers]


def agreement(recorded: list[str], taken: list[str]) -> float:
    """Return the share of prompts whose two answers are the same text; 0 for another number of prompts."""
    if len(recorded) != len(taken) or not recorded:
        return 0.0
    return sum(one == other for one, other in zip(recorded, taken, strict=True)) / len(recorded)


def check_fingerprint(path: Path, taken: list[str]) -> float:
    """Compare with what is recorded; record it where nothing is.

    Args:
        path: of the record (`fingerprint_file`).

    Returns:
        The agreement, 1 where it was recorded now.

    Raises:
        BadFingerprint: too few answers agree.
        BadInput: the record cannot be read.
    """
    if not path.is_file():
        write_json(path, {"answers": taken})
        return 1.0
    recorded = _read(path)
    share = agreement(recorded, taken)
    if share < LEAST_AGREEMENT:
        differing = next((pair for pair in zip(recorded, taken, strict=False) if pair[0] != pair[1]), ("", ""))
        raise BadFingerprint(
            f"{share:.0%} of the answers to the fixed prompts are those in {path}, at least {LEAST_AGREEMENT:.0%} must "
            f"be (first other one: {differing[0]!r} recorded, {differing[1]!r} now)"
        )
    return share


def fingerprint_file(folder: Path, model_sha256: str, tenant: TenantSettings, max_new_tokens: int) -> Path:
    """Return where a model's fingerprint lies: another system prompt or limit has another one."""
    prompts = [build_messages(as_trained(sample, tenant), tenant) for sample in fingerprint_samples(tenant)]
    asked = json.dumps([model_sha256, max_new_tokens, prompts], ensure_ascii=False)
    return folder / f"{tenant.tenant_id}-{hashlib.sha256(asked.encode()).hexdigest()[:16]}.json"


def _read(path: Path) -> list[str]:
    try:
        answers = json.loads(path.read_text(encoding="utf-8"))["answers"]
    except (OSError, ValueError, KeyError, TypeError):
        answers = None
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise BadInput(f"{path}: no fingerprint; remove the file to record it anew")
    return answers
