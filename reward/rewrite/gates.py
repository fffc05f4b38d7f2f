"""Gates of the reward: what makes a rewrite worthless before anything is retrieved. Pure functions over text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from reward.records.outcome import Gated, GateReason
from reward.records.sample import Sample
from reward.rewrite.leaks import address, decoration, leak
from reward.rewrite.meaning import READ, Finding, facts_of, negation_findings, number_findings, term_findings
from reward.text.fold import fold, invisible_characters
from reward.text.proper_names import names_lost, proper_names
from reward.text.terms import Lexicon

MAX_LENGTH_RATIO = 5
_CJK = re.compile(r"[\u3400-\u9fff]")
_LETTER = re.compile(r"[^\W\d_]")
_OTHER_SCRIPT = re.compile(r"[^\W\d_a-z\u00c0-\u024f\u0370-\u03ff\u3400-\u9fff\U00020000-\U0003ffff]")
_LATIN_WORD = re.compile(r"[a-z]{2,}")
_ACRONYM = re.compile(r"\b[A-Z][A-Z0-9-]{1,5}\b")
_BLANKS = re.compile(r"\s+")
_SPEAKER = re.compile(r"^ ?(?:用户|助手|客服|顾客|坐席) ?:", re.MULTILINE)  # who speaks in a dialogue of any language
_SENTENCE = re.compile(r"[a-z]+\s+[a-z]+")


def check_gates(
    sample: Sample,
    rewrite: str,
    *,
    gates: Iterable[GateReason],
    cap: int,
    lexicon: Lexicon,
    floor: float,
    special_tokens: Sequence[str] = (),
) -> Gated | None:
    """The first of `gates` that `rewrite` fails, with the floor reward, or None.

    Args:
        cap: longest rewrite in characters; five times the query and its context applies as well.
        lexicon: the tenant's groups and products, which may be neither dropped nor invented.
        special_tokens: those of the policy's tokenizer, beside the usual ones.
    """
    enabled = set(gates)
    for reason, detail in _findings(sample, rewrite, cap, lexicon, tuple(special_tokens)):
        if reason in enabled:
            return Gated(reward=floor, reason=reason, detail=detail)
    return None


def _findings(
    sample: Sample, rewrite: str, cap: int, lexicon: Lexicon, special_tokens: tuple[str, ...]
) -> Iterator[Finding]:
    context_text = sample.context.text
    room = min(cap, MAX_LENGTH_RATIO * (len(sample.original_query) + len(context_text)))
    if len(rewrite.strip()) > room:
        yield GateReason.TOO_LONG, f"{len(rewrite.strip())} > {room} characters"
    # What is read of a longer text is its end: nothing hides behind a wall of text, and nothing takes for ever.
    rewrite = rewrite.strip()[-READ:]
    said, asked = fold(rewrite).strip(), fold(sample.original_query)
    if not said:
        yield GateReason.EMPTY, ""
        return
    hidden = invisible_characters(rewrite) - invisible_characters(sample.original_query)
    if hidden or "\n" in said or "\ufffd" in said or not _LETTER.search(said):
        yield GateReason.UNPARSEABLE, rewrite[:40]
    context = facts_of(context_text, lexicon, of_context=True)
    known = f"{asked}\n{context.text}"
    # Runs of blanks add nothing but time to the patterns of leaks.
    line = _BLANKS.sub(" ", said)
    if token := leak(line, asked, special_tokens) or decoration(line, known):
        yield GateReason.TEMPLATE_LEAK, token
    if _switches_language(rewrite, said, asked, known):
        yield GateReason.LANGUAGE_SWITCH, ""
    query, stated = facts_of(sample.original_query, lexicon), facts_of(rewrite, lexicon)
    yield from number_findings(query, context, stated, room)
    yield from negation_findings(query, context, stated)
    yield from term_findings(query, context, stated, lexicon, room)
    # A rewrite in the language of the knowledge base may spell a name in its script.
    if not _CJK.search(said):
        for name in names_lost(proper_names(sample.original_query[:READ]), rewrite):
            yield GateReason.NAME_DROPPED, name
    if words := address(line, known):
        yield GateReason.JUDGE_ADDRESSED, words


def _switches_language(rewrite: str, said: str, asked: str, known: str) -> bool:
    """Whether a rewrite leaves the query's language; a name (DHA, iPhone) is no language.

    A rewrite may answer a code in the language of the knowledge base.
    """
    if any(character not in known for character in _OTHER_SCRIPT.findall(said)):
        return True
    chinese = len(_CJK.findall(said))
    if _CJK.search(asked):
        names = {name.lower() for name in _ACRONYM.findall(rewrite)}
        words = {word for word in _LATIN_WORD.findall(said) if word not in known and word not in names}
        return chinese == 0 or (len(words) > 1 and sum(map(len, words)) > 2 * chinese)
    return chinese > 0 and bool(_SENTENCE.search(asked)) and not _CJK.search(_SPEAKER.sub("", known))
