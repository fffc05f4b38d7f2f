"""The chat messages of a medical question: one form for SFT, RL, evaluation and serving. Pure."""

from __future__ import annotations

from reward.records.sample import Sample

OPEN, CLOSE = "<think>", "</think>"


def build_messages(sample: Sample, system_prompt: str) -> list[dict[str, str]]:
    """Return the system message and a user message, each {"role", "content"}: what went before, then the question."""
    user = "\n\n".join(text for text in (sample.context.text, sample.original_query) if text)
    return [{"role": "system", "content": system_prompt}, {"role": "user", "content": user}]


def write_completion(chain: str, answer: str) -> str:
    """Return what the policy is to write: its reasoning in tags, then the answer.

    >>> write_completion("胸痛伴出汗，先排除心梗。", "请立即拨打120。")
    '<think>\\n胸痛伴出汗，先排除心梗。\\n</think>\\n\\n请立即拨打120。'
    """
    return f"{OPEN}\n{chain.strip()}\n{CLOSE}\n\n{answer.strip()}"


def build_sft_messages(sample: Sample, system_prompt: str) -> list[dict[str, str]]:
    """Return the prompt and, as the assistant's turn, the chain and answer to imitate."""
    return [*build_messages(sample, system_prompt), {"role": "assistant", "content": sample.rewritten_query}]
