"""Synthetic Chinese knowledge bases and the questions they are asked, seeded.

Words are drawn by their frequency from jieba's dictionary. Each passage has three rarer words of its own subject, said
twice; a question is two of them and two more words of its passage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import jieba
import numpy as np

_WORDS, _SUBJECTS = 40_000, 20_000  # of the dictionary's most frequent; the last so many of them are subjects
_SENTENCES, _LONGEST = 4, 9  # sentences of a passage, words of a sentence
_CJK_WORD = re.compile(r"[\u4e00-\u9fff]{1,4}")


@dataclass(frozen=True)
class Question:
    tenant: str
    text: str


class SyntheticText:
    """`passage(tenant, n)` and `question(tenant, n)` depend on the seed, the tenant and n alone."""

    def __init__(self, seed: int):
        self._seed = seed
        with jieba.get_dict_file() as file:
            rows = [line.decode().split()[:2] for line in file]
        ranked = sorted(((int(count), word) for word, count in rows if _CJK_WORD.fullmatch(word)), reverse=True)
        self._words = [word for _, word in ranked[:_WORDS]]
        weights = np.array([count for count, _ in ranked[:_WORDS]], dtype=np.float64) ** 0.75  # dampens 的
        self._cumulative = np.cumsum(weights) / weights.sum()

    def passage(self, tenant: str, n: int) -> str:
        subjects, words = self._draw(tenant, n)
        sentences = []
        for place in range(_SENTENCES):
            sentence = words[place * _LONGEST : (place + 1) * _LONGEST - place]
            sentence.insert(2, subjects[place % 3])
            sentences.append("".join(sentence[:5]) + "，" + "".join(sentence[5:]) + "。")
        return f"{''.join(subjects)}：{''.join(sentences)}"

    def question(self, tenant: str, n: int, times: int = 0) -> Question:
        """Return a question about passage n; another `times`, another question about it."""
        subjects, words = self._draw(tenant, n)
        return Question(tenant, f"{subjects[times % 3]}{words[times]}{subjects[(times + 1) % 3]}{words[times + 9]}")

    def questions(self, tenants: list[str], passages: int, count: int, start: int) -> Iterator[Question]:
        """Yield `count` questions, spread evenly over the tenants' passages; another `start`, other questions."""
        random = np.random.default_rng([self._seed, start])
        for number in range(count):
            n = int(random.integers(passages))
            yield self.question(tenants[number % len(tenants)], n, start % 9)

    def _draw(self, tenant: str, n: int) -> tuple[list[str], list[str]]:
        random = np.random.default_rng([self._seed, *tenant.encode(), n])
        subjects = random.integers(_WORDS - _SUBJECTS, len(self._words), 3)
        words = np.searchsorted(self._cumulative, random.random(_SENTENCES * _LONGEST))
        return [self._words[i] for i in subjects], [self._words[i] for i in words]
