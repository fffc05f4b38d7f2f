"""Make queries from passages, for a knowledge base that nobody has asked anything yet. Seeded, without a model.

Styles, each a slice of its own: a question that people wrote for the passage, its title, one of its sentences, that
sentence without its rarest words (a customer does not know them), a few of its words, and the same in polite phrases.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

from evaluation.headroom_study.knowledge_base import Passage
from evaluation.headroom_study.words import Frequencies, join_words, words_of
from guard.personal.masking import mask_id
from reward.records.sample import Metadata, Sample
from reward.settings.recipe import Language, TenantSettings

STYLES = ("question", "title", "sentence", "vague", "keywords", "wordy")
_POLITE: dict[Language, str] = {
    "zh": "你好，我想问一下关于{}的问题，麻烦告诉我怎么办，谢谢",
    "en": "Hi, could you please tell me something about {}? Thank you very much",
}
_SENTENCE_END = re.compile(r"(?<=[。！？!?；;])|(?<=\.)\s+|\n+")
_KEYWORDS = 4
_READ = 5000  # passages whose words are counted
_LONGEST = 200  # characters of a query


def make_queries(passages: Sequence[Passage], tenant: TenantSettings, count: int, seed: int) -> list[Sample]:
    """Return `count` samples with known relevant passages, fewer where the passages do not give as many.

    Relevant is the passage a query is from, and every other with the same text (for a title: with the same title).
    """
    chance = random.Random(seed)
    order = chance.sample(passages, len(passages))
    frequencies = Frequencies(passage.text for passage in order[:_READ])
    alike: dict[tuple[str, str], list[str]] = {}
    for passage in passages:
        alike.setdefault(("title", passage.title), []).append(passage.doc_id)
        alike.setdefault(("text", passage.text), []).append(passage.doc_id)
    made: list[Sample] = []
    seen: set[str] = set()
    # Round after round: each passage gives its next style, so that no style crowds out the others.
    for turn in range(len(STYLES)):
        for place, passage in enumerate(order):
            if len(made) == count:
                return made
            style = STYLES[(place + turn) % len(STYLES)]
            query = _query(style, passage, frequencies, tenant.language, chance)
            if query and query not in seen:
                seen.add(query)
                relevant = alike[("title", passage.title) if style == "title" else ("text", passage.text)]
                made.append(_sample(len(made), query, style, relevant, tenant))
    return made


def _sample(number: int, query: str, style: str, relevant: Sequence[str], tenant: TenantSettings) -> Sample:
    return Sample(
        sample_id=f"{tenant.short_id}_synthetic_{number:04d}",
        original_query=query,
        metadata=Metadata(tenant_id=tenant.tenant_id, split="test", slices=(f"synthetic_{style}",)),
        relevant_doc_ids=tuple(map(mask_id, relevant)),
    )


def _query(style: str, passage: Passage, frequencies: Frequencies, language: Language, chance: random.Random) -> str:
    """Return a query of that style, "" where the passage does not give one."""
    match style:
        case "question":
            return chance.choice(passage.questions)[:_LONGEST] if passage.questions else ""
        case "title":
            return passage.title[:_LONGEST]
        case "sentence":
            return _sentence(passage.text, chance)
        case "vague":
            return _without_rarest(_sentence(passage.text, chance), frequencies)
        case "keywords":
            return " ".join(_keywords(passage.text, frequencies, chance))
    words = _keywords(passage.text, frequencies, chance)
    return _POLITE[language].format(("、" if language == "zh" else " ").join(words)) if words else ""


def _sentence(text: str, chance: random.Random) -> str:
    """Draw a sentence of four words or more, "" where there is none."""
    sentences = [part for part in _parts(text) if len(words_of(part)) >= 4]
    return chance.choice(sentences)[:_LONGEST].rstrip("。！？!?；;. ") if sentences else ""


def _parts(text: str) -> Iterator[str]:
    return (part.strip() for part in _SENTENCE_END.split(text) if part and part.strip())


def _without_rarest(sentence: str, frequencies: Frequencies) -> str:
    """Leave out the rarest third of the words."""
    words = words_of(sentence)
    by_rarity = sorted(range(len(words)), key=lambda i: -frequencies.weight(words[i].text))
    left_out = set(by_rarity[: max(1, len(words) // 3)])
    kept = [i for i in range(len(words)) if i not in left_out]
    return join_words(sentence, words, kept) if len(kept) > 1 else ""


def _keywords(text: str, frequencies: Frequencies, chance: random.Random) -> list[str]:
    """Draw a few of the rarer words, in the order of the text; none where there are fewer than two."""
    words = list(dict.fromkeys(word.text for word in words_of(text) if len(word.text) > 1))
    rarer = sorted(words, key=lambda word: -frequencies.weight(word))[: 3 * _KEYWORDS]
    if len(rarer) < 2:
        return []
    drawn = set(chance.sample(rarer, min(_KEYWORDS, len(rarer))))
    return [word for word in words if word in drawn]
