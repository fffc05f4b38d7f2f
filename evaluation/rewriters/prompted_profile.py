"""The profile of a prompted rewriter: `recipes/config/prompted/<name>.yaml`, or a YAML file of the user's."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reward.settings.chat import ChatSettings
from reward.settings.recipe import CONFIGS, load_settings

PROMPTED_CONFIGS = CONFIGS / "prompted"


class PromptedSettings(ChatSettings):
    """A chat model and how it is asked to rewrite.

    Args:
        prompt: `zero_shot` asks for a rewritten query, `hyde` for the passage that would answer it, which is then
            retrieved with (Gao et al. 2022, arXiv 2212.10496).
    """

    prompt: Literal["zero_shot", "hyde"] = "zero_shot"
    temperature: float | None = Field(0.0, ge=0, le=2)
    response_format: Literal["text"] = "text"


def load_prompted(name_or_path: str) -> PromptedSettings:
    """Read the profile of that name or YAML file.

    Raises:
        BadInput: no such profile, not YAML, or a key is unknown, missing or out of range.
    """
    known = sorted(path.stem for path in PROMPTED_CONFIGS.glob("*.yaml"))
    return load_settings(
        PromptedSettings, name_or_path, PROMPTED_CONFIGS, "prompted", f"known profiles: {', '.join(known)}"
    )
