"""Ollama's Modelfile, whose template gives the very prompts of the training.

A prompt of the training is one system and one user message, or for query expansion one user message round the query;
the tokenizer's chat template wraps fixed text round them. That text, found by rendering markers, is the Modelfile's
template: with thinking off it holds the empty think block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from reward.expansion.prompt import build_messages
from reward.records.files import BadInput

SYSTEM, USER, ANSWER = "SYSTEM-MARKER", "USER-MARKER", "ANSWER-MARKER"
# More than any prompt (1024 tokens) and rewrite take; Ollama's own default is a guess about the machine.
CONTEXT = 4096
# Of query expansion, as its source serves the model.
EXPANSION_PARAMETERS = {"top_p": 1, "top_k": 0, "repeat_penalty": 1.1}


class GoTemplate(Protocol):
    def go_template(self) -> str:
        """Return the template in the language of Go's text/template."""
        ...


@dataclass(frozen=True)
class ChatTemplate:
    """The fixed text of a prompt: before the system message, between it and the user's, after the user's; instead of
    the first two where there is no system message; and after the answer."""

    before: str
    between: str
    after: str
    without_system: str
    end: str

    def prompt(self, system: str, user: str) -> str:
        """Return the prompt as Ollama renders it."""
        start = f"{self.before}{system}{self.between}" if system else self.without_system
        return f"{start}{user}{self.after}"

    def go_template(self) -> str:
        """Return the template in the language of Go's text/template."""
        before, between, after, without, end = (
            _literal(text) for text in (self.before, self.between, self.after, self.without_system, self.end)
        )
        start = f"{{{{ if .System }}}}{before}{{{{ .System }}}}{between}{{{{ else }}}}{without}{{{{ end }}}}"
        return f"{start}{{{{ .Prompt }}}}{after}{{{{ .Response }}}}{end}"


@dataclass(frozen=True)
class QueryTemplate:
    """The fixed text round the query of an expansion: requests bring the query alone. There is no system message, as in
    training: one that a request brings is dropped."""

    before: str
    after: str
    end: str

    def prompt(self, query: str) -> str:
        """Return the prompt as Ollama renders it."""
        return f"{self.before}{query}{self.after}"

    def go_template(self) -> str:
        """Return the template in the language of Go's text/template."""
        before, after, end = (_literal(text) for text in (self.before, self.after, self.end))
        return f"{before}{{{{ .Prompt }}}}{after}{{{{ .Response }}}}{end}"


def render(tokenizer: Any, messages: Sequence[dict[str, str]], *, answered: bool = False) -> str:
    """Return the prompt as training renders it: thinking off, ready for the answer unless it is `answered`."""
    return tokenizer.apply_chat_template(
        list(messages), tokenize=False, add_generation_prompt=not answered, enable_thinking=False
    )


def read_chat_template(tokenizer: Any, source: str) -> ChatTemplate:
    """Find the fixed text of the tokenizer's chat template.

    Raises:
        BadInput: there is no template, or it does more to a prompt than to wrap text round its messages.
    """
    if not tokenizer.chat_template:
        raise BadInput(f"{source}: tokenizer has no chat template; without it the model's prompts are unknown")
    system, user = {"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}
    before, between, after = _split(render(tokenizer, [system, user]), SYSTEM, USER, source=source)
    without_system, after_alone = _split(render(tokenizer, [user]), USER, source=source)
    if after != after_alone:
        raise BadInput(f"{source}: the chat template ends a prompt differently with and without a system message")
    answer = {"role": "assistant", "content": ANSWER}
    *_, end = _split(render(tokenizer, [system, user, answer], answered=True), ANSWER, source=source)
    return ChatTemplate(before, between, after, without_system, end)


def read_query_template(tokenizer: Any, source: str) -> QueryTemplate:
    """Find the fixed text round the query of an expansion, in the prompt of its training.

    Raises:
        BadInput: there is no template, or it does more to a prompt than to wrap text round its message.
    """
    template = read_chat_template(tokenizer, source)
    [message] = build_messages(USER)
    said_before, found, said_after = message["content"].partition(USER)
    if not found:
        raise BadInput(f"{source}: the prompt of query expansion does not show the query as it is")
    return QueryTemplate(template.without_system + said_before, said_after + template.after, template.end)


def modelfile(
    weights: str,
    template: GoTemplate,
    *,
    system: str | None,
    stop: Sequence[str],
    context: int,
    max_new_tokens: int,
    parameters: Mapping[str, float] | None = None,
) -> str:
    """Return the Modelfile's text.

    Args:
        weights: name of the GGUF file beside the Modelfile.
        system: the tenant's system prompt; None: requests bring it.
        stop: texts that end an answer.
        context: tokens of prompt and answer together.
        parameters: further ones, by name.

    Raises:
        BadInput: a text cannot be written in a Modelfile.
    """
    lines = [
        f"FROM ./{weights}",
        f"TEMPLATE {_quoted(template.go_template())}",
        *([] if system is None else [f"SYSTEM {_quoted(system)}"]),
        "PARAMETER temperature 0",
        *(f"PARAMETER {name} {value:g}" for name, value in (parameters or {}).items()),
        f"PARAMETER num_ctx {context}",
        f"PARAMETER num_predict {max_new_tokens}",
        *(f'PARAMETER stop "{text}"' for text in stop),
    ]
    return "\n".join(lines) + "\n"


def _split(text: str, *markers: str, source: str) -> list[str]:
    """Return what lies round the markers, each of which must occur once, in this order."""
    parts, rest = [], text
    for marker in markers:
        part, found, rest = rest.partition(marker)
        if not found or marker in rest:
            raise BadInput(f"{source}: the chat template does not show every message as it is, once and in order")
        parts.append(part)
    return [*parts, rest]


def _literal(text: str) -> str:
    """Write fixed text so that Go's template leaves it as it is."""
    return '{{ "{{" }}'.join(text.split("{{"))


def _quoted(text: str) -> str:
    """Quote a text for a Modelfile. Ollama's parser drops what cannot be printed and knows no escapes."""
    bad = next((c for c in text if not (c.isprintable() or c in "\n\t")), None)
    if bad is not None or '"""' in text:
        what = '"""' if bad is None else f"the character U+{ord(bad):04X}"
        raise BadInput(f"a Modelfile cannot hold {what}, which the chat template or the system prompt has")
    return f'"""{text}"""'
