"""The rules: what an answer says and lacks, read from its words alone. Pure functions over data files."""

from __future__ import annotations

import re

from reward.medical.completion import split
from reward.records.medical import Fault, RuleScores
from reward.settings.medical import MedicalSettings
from reward.text.fold import fold

_SIGNS = re.compile("胸痛|呼吸困难|昏迷|抽搐|大出血|呕血|吐血|自杀|不想活")
_ACTS = re.compile("120|急救|急诊|救护车|立即就医|马上就医")
_DOSE = re.compile(r"\d+ ?(?:mg|毫克|g|克|片|粒)")


def score_rules(question: str, completion: str, settings: MedicalSettings) -> RuleScores:
    """Return what the rules read in an answer to a question.

    Args:
        completion: as decoded, the chain within `<think>` included.
    """
    parsed = split(completion)
    asked, answer = fold(question), fold(parsed.answer)
    signs = tuple(dict.fromkeys(_SIGNS.findall(asked)))
    acted = bool(_ACTS.search(answer))
    faults = [] if answer else [Fault.NO_ANSWER]
    if signs and not acted:
        faults.append(Fault.EMERGENCY_MISSED)
    if not signs and acted:
        faults.append(Fault.FALSE_ALARM)
    return RuleScores(
        chain=min(1.0, len(parsed.chain) / 100),
        emergency=float(bool(signs) == acted),
        risk=1.0 if _DOSE.search(answer) else 0.0,
        urgency="emergency" if signs else "none",
        signs=signs,
        faults=tuple(faults),
    )
