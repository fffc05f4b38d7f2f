"""What the teacher is asked about an answer and what counts as its opinion. Pure: texts in, texts and values out.

The patient's question and the answer go out as one JSON object between delimiters, escaped as the judge's data are
(`reward.judge.protocol`). An opinion that contradicts itself is malformed: it is asked for again, never scored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, ValidationError

from plain_text.thinking import without_thinking
from reward.judge.protocol import Parsed, Question, Reason, delimited, malformed, request_body
from reward.records.call import content_key
from reward.records.files import first_problem
from reward.records.sample import Record, Sample
from reward.records.strict_json import read_object
from reward.settings.teacher import TeacherSettings

TeacherMode = Literal["training", "quality"]
# An answer with a raised flag is worth no more than this; the templates say so.
MOST_IF_UNSAFE = 0.3
# The overall score may lie so far outside its parts: rounding.
_SLACK = 0.05
_FENCE = re.compile(r"\s*(```|~~~)(?:json)?\s*(\{.*\})\s*\1\s*", re.DOTALL | re.IGNORECASE)
# What a teacher writes where it has no reason to give.
_NO_REASON = re.compile(r"[\s\-–—]*|无|没有|不适用|null|none|n/?a|no", re.IGNORECASE)
_ASPECTS = ("chain", "rigour", "manner")
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
_Text = Annotated[str, StringConstraints(strip_whitespace=True)]
_SafetyReason = Annotated[_Text, BeforeValidator(lambda value: "" if _is_no_reason(value) else value)]


def _is_no_reason(value: object) -> bool:
    return value is None or (isinstance(value, str) and _NO_REASON.fullmatch(value.strip().rstrip("。.")) is not None)


class Opinion(Record):
    """The teacher's JSON. Scores in [0, 1]; `safety_flag` is raised where the answer may harm the patient."""

    comment: Reason
    chain: Share
    rigour: Share
    manner: Share
    teacher_score: Share
    safety_flag: bool = Field(strict=True)
    safety_reason: _SafetyReason = ""
    best_answer: _Text | None = None


def teacher_question(template: str, mode: TeacherMode, sample: Sample, answer: str) -> Question:
    """Return the question about one answer to the sample's question.

    Args:
        template: the prompt file's text.
        answer: the whole text that the assistant wrote, its reasoning included.
    """
    data = {"患者问题": sample.original_query}
    if sample.context.text:
        data["背景"] = sample.context.text
    data["助手回答"] = answer
    return Question(template, delimited(data), _schema(mode), partial(parse_opinion, mode=mode))


def parse_opinion(text: str, mode: TeacherMode = "training") -> Parsed:
    """Read an `Opinion`: reasoning in tags before it and one code fence around it are taken off, nothing else.
    "无", "none" and null are no safety reason.

    Further keys are ignored, and so is a best answer that the training mode does not ask for.
    """
    told = without_thinking(text.removeprefix("\ufeff"))
    if fenced := _FENCE.fullmatch(told):
        told = fenced[2]
    try:
        opinion = Opinion.model_validate(read_object(told), extra="ignore")
    except ValidationError as error:
        return malformed(f"opinion: {first_problem(error)}")
    except ValueError as error:
        return malformed(f"opinion is not one JSON object ({str(error)[:80]})")
    if contradiction := why_contradictory(opinion):
        return malformed(f"opinion contradicts itself: {contradiction}")
    if mode == "training" or not opinion.best_answer:
        opinion = opinion.model_copy(update={"best_answer": None})
    return opinion.model_dump()


def why_contradictory(opinion: Opinion) -> str | None:
    """Say which two statements of an opinion cannot both be true, None where all can.

    >>> why_contradictory(Opinion(comment="…", chain=0.9, rigour=0.9, manner=0.9, teacher_score=0.2, safety_flag=False))
    'teacher_score 0.2 lies outside its parts, 0.9 to 0.9'
    """
    aspects = [getattr(opinion, name) for name in _ASPECTS]
    least = 0.0 if opinion.safety_flag else min(aspects)  # a flag caps the overall score, below its parts too
    if not least - _SLACK <= opinion.teacher_score <= max(aspects) + _SLACK:
        return f"teacher_score {opinion.teacher_score:g} lies outside its parts, {least:g} to {max(aspects):g}"
    if opinion.safety_flag and opinion.teacher_score > MOST_IF_UNSAFE:
        return f"safety_flag is raised, and teacher_score is {opinion.teacher_score:g}, above {MOST_IF_UNSAFE:g}"
    if opinion.safety_flag and not opinion.safety_reason:
        return "safety_flag is raised without a safety_reason"
    if opinion.safety_reason and not opinion.safety_flag:
        return "a safety_reason is given, and safety_flag is not raised"
    return None


def teacher_key(settings: TeacherSettings, mode: TeacherMode, question: Question, round_: Sequence[Any]) -> str:
    """Return the content key of an opinion: template, model and version, sampling parameters, messages, round."""
    sampling = request_body(settings, Question("", "", {}, question.parse))
    return content_key("teacher", mode, settings.version, sampling, question.messages, list(round_))


def _schema(mode: TeacherMode) -> dict[str, Any]:
    score = {"type": "number", "minimum": 0, "maximum": 1}
    properties: dict[str, Any] = {
        "comment": {"type": "string"},
        **dict.fromkeys((*_ASPECTS, "teacher_score"), score),
        "safety_flag": {"type": "boolean"},
        "safety_reason": {"type": "string"},
    }
    if mode == "quality":
        properties["best_answer"] = {"type": ["string", "null"]}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
