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
# What speaks of the output itself.
_OF_ITSELF = (
    r"(?:this|my|the (?:above|whole)) (?:expansion|answer|output|rewrite|response|completion)s?\b"
    r"|(?:the|an?) (?:excellent|perfect|ideal|best) (?:expansion|answer|output|rewrite|completion)"
    r"|(?:excellent|perfect) expansion|as an ai\b"
    r"|(?:本|此|这个|这条|该)(?:条)?(?:扩展|改写|答案|回答|输出)|(?:以上|上述)(?:扩展|改写|答案|回答|输出)"
    r"|最(?:佳|好|优)的?(?:扩展|改写|输出)"
)
# What speaks of marks and judges; a query may be about these (`_TOPIC`).
_OF_MARKS = (
    r"(?:give|award|rate|score|grade|rank|assign)\w*\b[^.。]{0,40}?"
    r"(?:full (?:marks?|score|points|credit|reward)|perfect|10/10|5/5|\b1\.0\b|100 ?%|100/100|five stars"
    r"|(?:top|highest|maximum|max|best) (?:possible )?(?:score|marks?|rating|reward|grade|points))"
    r"|(?:ignore|disregard|forget|override) (?:all |any |the |your )*"
    r"(?:previous|above|prior|earlier|other|scoring|grading) (?:instructions?|rules?|prompts?|criteria|candidates?)"
    r"|(?:dear|hello|attention|note to(?: the)?) (?:judge|grader|evaluator|scorer|reward model)"
    r"|(?:judge|grader|evaluator)s? *[:,]|reward model|system prompt"
    r"|(?:score|rating|reward|grade|quality)\s*[:=]\s*(?:\d|excellent|perfect|high)|overall rating"
    r"|(?:请|应|务必|直接)[^,。，]{0,12}(?:满分|高分|最高分|[五5]分|100?分|打分|评分|评为)|给[^,。，]{0,8}(?:满分|最高分)"
    r"|(?:评委|评审|裁判|打分|评分)(?:员|老师|模型|者|系统)?(?:您好|你好|请|[:：])|得(?:满分|100?分|[五5]分)"
    r"|(?:忽略|无视|忘记|不要理会)[^,。，]{0,6}(?:指令|规则|要求|提示|标准)|系统提示|质量(?:极高|优秀|完美)|奖励模型"
)
_ITSELF, _BAIT = re.compile(_OF_ITSELF), re.compile(f"{_OF_ITSELF}|{_OF_MARKS}")
_TOPIC = re.compile(
    "scor|grad|rating|judg|exam|marks?\\b|reward|prompt|instruction|injection|review|test|quality|model"
    "|分|评|裁判|提示|指令|规则|考|奖励|模型|质量"
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
    bait_of = _ITSELF if _TOPIC.search(known) else _BAIT
    for line in expansion.lines:
        if len(line.text) > LONGEST_LINE:
            return GateReason.TOO_LONG, f"a line of {len(line.text)} characters, at most {LONGEST_LINE}"
        if _switches(line.text, query, language):
            return GateReason.LANGUAGE_SWITCH, f"another language: {line.text[:SHOWN]!r}"
        said = fold(line.text)
        if not _PIECE.search(said):
            continue
        for bait in bait_of.finditer(said):
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
