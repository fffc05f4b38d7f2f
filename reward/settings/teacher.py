"""The teacher: a stronger model that grades the answers of a medical assistant."""

from __future__ import annotations

from pydantic import Field

from reward.settings.chat import ChatSettings, PriceSettings


class TeacherSettings(ChatSettings):
    """The profile of a teacher behind an OpenAI-compatible chat API.

    Args:
        template: version of the prompt files, `judge/prompts/teacher/<mode>-<template>.txt`.
    """

    template: str = "v1"
    max_output_tokens: int = Field(800, ge=1)
    price: PriceSettings
