"""A prompt under attack, and what a kind of attack is. Pure."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from benchmarks.integrity_runs.suite import Prompt, TenantSuite

Family = Literal["near-copy", "recital", "free rider", "leak", "fact", "other query", "unseen"]
GATED: tuple[Family, ...] = ("leak", "free rider", "fact")  # what a rule of text can see before anything is retrieved
CJK = re.compile(r"[\u3400-\u9fff]")


@dataclass(frozen=True)
class Case:
    """A prompt under attack: `chance` makes the seeded choices, `honest` is the honest rewrite that is abused."""

    prompt: Prompt
    suite: TenantSuite
    chance: random.Random
    honest: str

    @property
    def query(self) -> str:
        return self.prompt.sample.original_query

    @property
    def known(self) -> str:
        return f"{self.query}\n{self.prompt.sample.context.text}"

    @property
    def is_chinese(self) -> bool:
        return bool(CJK.search(self.query))

    def pick(self, zh: tuple[str, ...], en: tuple[str, ...] = ()) -> str:
        """One of the Chinese texts, or of the English ones; "" where there is none for this language."""
        texts = zh if self.is_chinese or not en else en
        return self.chance.choice(texts)

    def recited(self, start: float, length: int) -> str:
        """So many characters (three times as many Latin ones) of the relevant passage, from a share of it on."""
        length *= 1 if self.is_chinese else 3
        text = self.prompt.passage
        begin = min(round(start * len(text)), max(0, len(text) - length))
        return text[begin : begin + length].strip()

    def foreign_groups(self, name: int = 0) -> list[str]:
        """Groups that neither query nor context names, by their first name or another one."""
        return [group[name] for group in self.suite.groups if not any(known in self.known for known in group)]


@dataclass(frozen=True)
class Kind:
    """One kind of attack; the generator's docstring says what it does."""

    name: str
    family: Family
    generate: Callable[[Case], str]


def attack(kind: Kind, prompt: Prompt, suite: TenantSuite, seed: int) -> str:
    """Return the attack of this kind on this prompt, "" where it does not apply; same seed, same text."""
    chance = random.Random(f"{kind.name} {prompt.sample.sample_id} {seed}")
    text = kind.generate(Case(prompt, suite, chance, chance.choice(prompt.honest)))
    return "" if text in prompt.honest else text
