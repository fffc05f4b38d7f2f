"""The chat template: one for SFT, RL, evaluation and serving.

user message = labelled parts separated by blank lines:

    原始查询: …

    用户画像: …            when there is one
    历史摘要: …            when there is one
    对话历史: …            when there is a dialogue and no summary of it
    请改写上面的查询，便于知识库检索。

A summary replaces the dialogue: both together would say the same twice and outgrow the 1024 tokens of a prompt.
Texts are normalised here as the training data is, so that serving cannot drift from training; a query holds no line
break, so it cannot pose as another part.
"""

from __future__ import annotations

from data_prep.text.normalise import normalise_line, normalise_lines
from reward.records.sample import Sample

QUERY_LABEL = "原始查询: "
PROFILE_LABEL = "用户画像: "
SUMMARY_LABEL = "历史摘要: "
HISTORY_LABEL = "对话历史: "
# Characters: of a longer dialogue the end counts. Keeps a prompt below 1024 tokens.
LONGEST_HISTORY = 400
INSTRUCTION = "请改写上面的查询，便于知识库检索。"
SEPARATOR = "\n\n"
# A tokenizer maker may make each of these one token.
FIXED_STRINGS = (QUERY_LABEL, PROFILE_LABEL, SUMMARY_LABEL, HISTORY_LABEL, INSTRUCTION)


def build_messages(sample: Sample, system_prompt: str) -> list[dict[str, str]]:
    """Build the prompt of `sample`: a system and a user message, each {"role", "content"}."""
    context = sample.context
    summary = normalise_line(context.history_summary)
    parts = [
        (QUERY_LABEL, normalise_line(sample.original_query)),
        (PROFILE_LABEL, normalise_line(context.user_profile)),
        (SUMMARY_LABEL, summary),
        (HISTORY_LABEL, "" if summary else normalise_lines(context.history_context)[-LONGEST_HISTORY:]),
    ]
    user = SEPARATOR.join([label + text for label, text in parts if text] + [INSTRUCTION])
    return [{"role": "system", "content": system_prompt}, {"role": "user", "content": user}]


def build_sft_messages(sample: Sample, system_prompt: str) -> list[dict[str, str]]:
    """Build the prompt and, as the assistant's turn, the rewrite to imitate."""
    return [*build_messages(sample, system_prompt), {"role": "assistant", "content": sample.rewritten_query}]
