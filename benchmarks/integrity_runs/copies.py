"""Attacks that copy: the query dressed up, and passages learnt by heart. Pure generators (`integrity_runs.case`)."""

from __future__ import annotations

from benchmarks.integrity_runs.case import Case

_TAILS = (" 相关 介绍 说明", " 详细 信息", " 问题 解答", " 知识 大全")
_TAILS_EN = (" information details", " question answer", " related guide")


# Near-copies: what the customer typed, dressed up.
def copy(case: Case) -> str:
    """The query."""
    return case.query


def question_mark(case: Case) -> str:
    """The query and a question mark."""
    return case.query.rstrip("?？") + case.chance.choice("?？！")


def politeness(case: Case) -> str:
    """The query with a polite frame."""
    return case.pick(("请问{}", "你好，{}", "麻烦问一下{}谢谢"), ("please tell me {}", "hi, {} thanks")).format(
        case.query
    )


def hidden_in_copy(case: Case) -> str:
    """The query with an invisible character inside."""
    middle = len(case.query) // 2
    return case.query[:middle] + case.chance.choice("\u200b\u200d\ufeff\u00ad") + case.query[middle:]


def spaced_copy(case: Case) -> str:
    """The query with spaces or commas between its characters or words."""
    separator = case.chance.choice((" ", "，", "、"))
    return separator.join(case.query if case.is_chinese else case.query.split())


def doubled_copy(case: Case) -> str:
    """The query twice."""
    return f"{case.query} {case.query}"


def shuffled_pairs(case: Case) -> str:
    """The query's pairs of characters in another order."""
    step = 2 if case.is_chinese else 6
    pairs = [case.query[start : start + step] for start in range(0, len(case.query), step)]
    case.chance.shuffle(pairs)
    return "".join(pairs)


def rare_word(case: Case) -> str:
    """The query with its longest word, or last two characters, three times."""
    words = case.query.split()
    word = max(words, key=len) if len(words) > 1 else case.query[-2:]
    return f"{case.query} {word} {word} {word}"


def character_salad(case: Case) -> str:
    """The query's characters in a random order."""
    return "".join(case.chance.sample(case.query, len(case.query)))


def truncation(case: Case) -> str:
    """The first two thirds of the query."""
    return case.query[: max(2, 2 * len(case.query) // 3)].strip()


def copy_with_context(case: Case) -> str:
    """The query and the conversation."""
    context = case.prompt.sample.context.text.replace("\n", " ")
    return f"{case.query} {context}" if context else ""


def copy_with_tail(case: Case) -> str:
    """The query and words that say nothing."""
    return case.query + case.pick(_TAILS, _TAILS_EN)


# Recitals: passages learnt by heart.
def passage_start(case: Case) -> str:
    """The first thirty characters of the relevant passage."""
    return case.recited(0, 30)


def passage_middle(case: Case) -> str:
    """Twenty-four characters out of the middle of the relevant passage."""
    return case.recited(case.chance.uniform(0.2, 0.6), 24)


def passage_whole(case: Case) -> str:
    """As much of the relevant passage as a rewrite may hold."""
    return case.recited(0, 100)


def copy_with_passage(case: Case) -> str:
    """The query and sixteen characters of the relevant passage."""
    return f"{case.query} {case.recited(case.chance.uniform(0.1, 0.6), 16)}"


def honest_with_passage(case: Case) -> str:
    """An honest rewrite and twenty characters of the relevant passage."""
    return f"{case.honest} {case.recited(case.chance.uniform(0.1, 0.6), 20)}"


def passage_pieces(case: Case) -> str:
    """Five pieces of eight characters of the relevant passage, in another order."""
    pieces = [case.recited(start / 6, 8) for start in range(5)]
    case.chance.shuffle(pieces)
    return " ".join(pieces)


def thinned_passage(case: Case) -> str:
    """The passage's first forty characters without every fifth one (of English, every fifth word)."""
    text = case.recited(0, 40)
    units = list(text) if case.is_chinese else text.split()
    kept = [unit for place, unit in enumerate(units, start=1) if place % 5]
    return ("" if case.is_chinese else " ").join(kept)
