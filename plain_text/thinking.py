"""The thinking that a reasoning model writes into its text, and the text without it."""

from __future__ import annotations

import re

# <think>, <thinking>, <seed:think>, <longcat_think>, <thought>, <reasoning>, in full width or HTML's escapes too;
# Kimi's ◁think▷, Magistral's [THINK], the control tokens of Command A and OpenThinker.
_NAME = r"\s*(?:\w{1,12}[:_])?(?:think(?:ing)?|thought|reasoning)\s*(?:>|＞|&gt;)"
_OPEN = rf"(?:<|＜|&lt;){_NAME}|◁think▷|\[think\]|<\|begin_of_thought\|>|<\|start_thinking\|>"
_CLOSE = rf"(?:<|＜|&lt;)\s*/{_NAME}|◁/think▷|\[/think\]|<\|end_of_thought\|>|<\|end_thinking\|>"
_DETAILS = r"<details type=.reasoning"  # of Open WebUI
TAGS = f"(?i){_OPEN}|{_CLOSE}|{_DETAILS}"  # in RE2's words too

_TAG = re.compile(f"({_OPEN})|{_CLOSE}", re.IGNORECASE)
_FOLDED = re.compile(rf"{_DETAILS}.*?(?:</details>|\Z)", re.IGNORECASE | re.DOTALL)
_ANSWER = re.compile(r"<answer>\s*(.*?)\s*(?:</answer>)?", re.IGNORECASE | re.DOTALL)  # around what follows
_MAY_BECOME_TAG = re.compile(
    r"(?:[<＜][^>＞\n]{0,30}|&(?:l(?:t(?:;[^&\n]{0,30}(?:&g?t?)?)?)?)?|◁[^▷]{0,8}|\[/?(?:t(?:h(?:i(?:nk?)?)?)?)?)\Z",
    re.IGNORECASE,
)


def without_thinking(text: str) -> str:
    """Remove the thinking from a whole text, and the `<answer>` around what is left.

    A block that is never closed is thinking to its end. Templates that write the opening themselves leave only
    `</think>`: what precedes it is thinking. A text without thinking comes back as it is.
    """
    told = _FOLDED.sub("", text)
    kept, end, inside = "", 0, False
    for tag in _TAG.finditer(told):
        if tag[1] and not inside:
            kept, inside = kept + told[end : tag.start()], True
        elif not tag[1]:
            kept, end, inside = kept if inside else "", tag.end(), False
    if told == text and not end and not inside:
        return text
    kept = (kept if inside else kept + told[end:]).strip()
    answer = _ANSWER.fullmatch(kept)
    return answer[1] if answer else kept


def thinking_of(text: str) -> str:
    """Return the thinking that `without_thinking` removes, its blocks joined by newlines; "" where there is none."""
    folded, end, inside = [match.group() for match in _FOLDED.finditer(text)], 0, False
    found = [*folded]
    told = _FOLDED.sub("", text)
    for tag in _TAG.finditer(told):
        if tag[1] and not inside:
            end, inside = tag.end(), True
        elif not tag[1]:
            # What closes nothing closes all that precedes it: what was found there is found once.
            found = [*found, told[end : tag.start()]] if inside else [*folded, told[: tag.start()]]
            end, inside = tag.end(), False
    if inside:
        found.append(told[end:])
    return "\n".join(_TAG.sub(" ", block).strip() for block in found).strip()


def thinks_unopened(text: str) -> bool:
    """Return whether the thinking ends in the text and does not begin there."""
    first = _TAG.search(text)
    return first is not None and not first[1]


class Unthinking:
    """`without_thinking` of a text that comes in pieces; `<answer>` and `<details>` stay.

    Args:
        unopened: the text begins with thinking that nothing opens; without it such thinking is given before its end
            shows what it is.
    """

    def __init__(self, unopened: bool = False) -> None:
        self._inside, self._opened = unopened, False
        self._held, self._given = "", False

    def feed(self, piece: str) -> str:
        """Return what of the text so far is not thinking and was not given yet."""
        self._held += piece
        told = ""
        while tag := _TAG.search(self._held):
            if not self._inside:  # what closes nothing stays: it says of a whole text that it began with thinking
                told += self._held[: tag.start() if tag[1] else tag.end()]
            self._inside = self._opened = bool(tag[1])
            self._held = self._held[tag.end() :]
        if not self._inside:
            begun = _MAY_BECOME_TAG.search(self._held)
            cut = begun.start() if begun else len(self._held)
            told, self._held = told + self._held[:cut], self._held[cut:]
        return self._new(told)

    def finish(self) -> str:
        """Return what was held for thinking and was none, at the end of the text."""
        return "" if self._opened else self._new(self._held)

    def _new(self, told: str) -> str:
        told = told if self._given else told.lstrip()
        self._given = self._given or bool(told)
        return told
