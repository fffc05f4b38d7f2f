"""The chat template: one for SFT, RL, evaluation and serving.

user message = labelled parts separated by blank lines, in the tenant's language (here `zh`):

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

from dataclasses import dataclass

from data_prep.text.normalise import normalise_line, normalise_lines
from reward.records.sample import Sample
from reward.settings.recipe import Language, TenantSettings

SEPARATOR = "\n\n"


@dataclass(frozen=True)
class PromptTemplate:
    """The fixed strings of the user message in one language.

    `longest_history` is in characters: of a longer dialogue the end counts. It keeps a prompt below 1024 tokens.
    """

    query: str
    profile: str
    summary: str
    history: str
    instruction: str
    longest_history: int

    @property
    def fixed_strings(self) -> tuple[str, ...]:
        """A tokenizer maker may make each of these one token."""
        return (self.query, self.profile, self.summary, self.history, self.instruction)


TEMPLATES: dict[Language, PromptTemplate] = {
    "zh": PromptTemplate(
        query="原始查询: ",
        profile="用户画像: ",
        summary="历史摘要: ",
        history="对话历史: ",
        instruction="请改写上面的查询，便于知识库检索。",
        longest_history=400,
    ),
    # A token is about four characters of English, one or two of Chinese.
    "en": PromptTemplate(
        query="Question: ",
        profile="User profile: ",
        summary="Summary of the conversation: ",
        history="Conversation: ",
        instruction="Rewrite the question as a search query that stands on its own.",
        longest_history=1200,
    ),
}


def build_messages(sample: Sample, tenant: TenantSettings) -> list[dict[str, str]]:
    """Build the prompt of `sample`: the tenant's system message and a user message, each {"role", "content"}."""
    context, template = sample.context, TEMPLATES[tenant.language]
    summary = normalise_line(context.history_summary)
    history = "" if summary else normalise_lines(context.history_context)[-template.longest_history :]
    parts = [
        (template.query, normalise_line(sample.original_query)),
        (template.profile, normalise_line(context.user_profile)),
        (template.summary, summary),
        (template.history, history),
    ]
    user = SEPARATOR.join([label + text for label, text in parts if text] + [template.instruction])
    return [{"role": "system", "content": tenant.system_prompt}, {"role": "user", "content": user}]


def build_sft_messages(sample: Sample, tenant: TenantSettings) -> list[dict[str, str]]:
    """Build the prompt and, as the assistant's turn, the rewrite to imitate."""
    return [*build_messages(sample, tenant), {"role": "assistant", "content": sample.rewritten_query}]
