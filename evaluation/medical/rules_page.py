"""The reward's definition as Markdown, out of the settings that count. Pure."""

from __future__ import annotations

import inspect

import yaml

from reward.medical.formulas import teacher_v1, teacher_v2
from reward.settings.medical import MedicalSettings


def rules_page(settings: MedicalSettings) -> str:
    """Return what a reward is made of under these settings."""
    doc = inspect.getdoc(teacher_v1 if settings.formula == "teacher-v1" else teacher_v2) or ""
    values = yaml.safe_dump(settings.model_dump(mode="json"), allow_unicode=True, sort_keys=False)
    return f"# Reward rules: {settings.formula}\n\n{doc}\n\n## Settings\n\n```yaml\n{values}```"
