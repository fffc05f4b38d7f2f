"""What makes an expansion worthless, whatever it finds (preset `rules-v2`). Pure."""

from __future__ import annotations

import re

from reward.expansion.language import CJK
from reward.expansion.parser import Expansion
from reward.records.outcome import GateReason
from reward.settings.recipe import Language
from reward.text.fold import fold

MOST_LINES, LONGEST_LINE = 8, 2000  # of a request to the retrieval service
SHOWN = 40  # characters of a line in a deduction

_OTHER_SCRIPT = re.compile(r"[\u0400-\u052f\u0590-\u08ff\u0900-\u0dff\u0e00-\u0fff\u3040-\u30ff\uac00-\ud7af]")
_LATIN_WORD = re.compile(r"[A-Za-z]{2,}")
# Words to a judge. Their pattern is slow: a line that holds none of these pieces is not searched.
_PIECE = re.compile(
    "perfect|full (?:mark|score|point|credit)|10/10|5/5|1\\.0|100|five stars|score|mark|rating|reward|grade|instruction"
    "|rule|prompt|criteria|candidate|expansion|answer|output|rewrite|response|completion|judge|evaluator|as an ai"
    "|[分评]|裁判|指令|规则|要求|提示|标准|扩展|改写|答案|回答|输出|质量|奖励"
)
_BAIT = re.compile(
    r"(?:give|award|rate|score|grade|rank|assign)\w*\b[^.。]{0,40}?"
    r"(?:full (?:marks?|score|points|credit|reward)|perfect|10/10|5/5|\b1\.0\b|100 ?%|100/100|five stars"
    r"|(?:top|highest|maximum|max|best) (?:possible )?(?:score|marks?|rating|reward|grade|points))"
    r"|(?:ignore|disregard|forget|override) (?:all |any |the |your )*"
    r"(?:previous|above|prior|earlier|other|scoring|grading) (?:instructions?|rules?|prompts?|criteria|candidates?)"
    r"|(?:this|my|the) (?:expansion|answer|output|rewrite|response|completion)s? (?:is|are|deserves?|should)\b"
    r"|(?:dear|hello|attention|note to(?: the)?) (?:judge|grader|evaluator|scorer|reward model)"
    r"|(?:judge|grader|evaluator)s? *[:,]|reward model|system prompt|as an ai\b"
    r"|(?:score|rating|reward|grade|quality)\s*[:=]\s*(?:\d|excellent|perfect|high)|overall rating|excellent expansion"
    r"|满分|评委|裁判|评审|打分|评分|(?:给|打|评|得)[^,。，]{0,6}(?:高分|五分|5分|10分|100分|一百分)"
    r"|(?:忽略|无视|忘记|不要理会)[^,。，]{0,6}(?:指令|规则|要求|提示|标准)|最(?:佳|好|优)(?:的)?(?:扩展|改写|答案|回答|输出)"
    r"|(?:本|此|这个|这条|该)(?:条)?(?:扩展|改写|答案|回答|输出)|系统提示|质量(?:极高|优秀|完美)|奖励模型"
)


def find_gate(query: str, expansion: Expansion, language: Language) -> tuple[GateReason, str] | None:
    """Return why an expansion is worthless, or None."""
    if expansion.leaked:
        return GateReason.TEMPLATE_LEAK, "template leakage"
    if expansion.unknown:
        return GateReason.UNPARSEABLE, f"line without a kind: {expansion.unknown[0][:SHOWN]!r}"
    if not expansion.lines:
        return GateReason.EMPTY, "no line"
    if len(expansion.lines) > MOST_LINES:
        return GateReason.TOO_LONG, f"{len(expansion.lines)} lines, at most {MOST_LINES}"
    known = fold(query)
    for line in expansion.lines:
        if len(line.text) > LONGEST_LINE:
            return GateReason.TOO_LONG, f"a line of {len(line.text)} characters, at most {LONGEST_LINE}"
        if _switches(line.text, query, language):
            return GateReason.LANGUAGE_SWITCH, f"another language: {line.text[:SHOWN]!r}"
        said = fold(line.text)
        if not _PIECE.search(said):
            continue
        for bait in _BAIT.finditer(said):
            if bait.group() not in known:
                return GateReason.JUDGE_ADDRESSED, f"words to a judge: {bait.group()[:SHOWN]!r}"
    return None


def _switches(line: str, query: str, language: Language) -> bool:
    """Whether a line leaves the query's language; what the query holds, and a single foreign name, do not."""
    if any(character not in query for character in _OTHER_SCRIPT.findall(line)):
        return True
    if language == "en":
        return bool(CJK.search(line)) and not CJK.search(query)
    chinese = len(CJK.findall(line))
    known = query.lower()
    foreign = [word for word in _LATIN_WORD.findall(line) if word.lower() not in known]
    return len(foreign) > 1 and sum(map(len, foreign)) > 2 * chinese
