"""Typed settings of a tenant and of the reward, validated once at start-up. An unknown key is an error.

Secrets never appear here: a setting that needs one holds the *name* of an environment variable, because the
trainer prints its whole configuration and sends it to experiment trackers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from reward.records import BadInput, GateReason, first_problem

TENANT_CONFIGS = Path(__file__).resolve().parent.parent / "recipes" / "config" / "tenant"


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FilterSettings(_Settings):
    """Which rows of an export are good enough to imitate (spec 1, "Cleaning"). Lengths in characters, inclusive."""

    min_top1_score: float = Field(0.6, ge=0, le=1)
    query_length: tuple[int, int] = (2, 200)
    rewrite_length: tuple[int, int] = (2, 500)
    max_length_ratio: float = Field(5.0, gt=0)


class ServiceSettings(_Settings):
    """How patiently one service is called. Times in seconds; `api_key_env` names an environment variable."""

    timeout: float = Field(30.0, gt=0)
    attempts: int = Field(3, ge=1)
    backoff: tuple[float, float] = (0.5, 5.0)
    max_concurrency: int = Field(10, ge=1)
    api_key_env: str | None = None


class RagSettings(ServiceSettings):
    """The retrieval service (spec 1, `POST {url}/api/chat/general_rag`)."""

    url: str = "http://127.0.0.1:8000"
    kb_name: str = "default"


class BaselineSettings(ServiceSettings):
    """The deployed rewriter to beat (spec 1, `POST {url}/api/rewrite_query`). No url: recorded rewrites only."""

    url: str | None = None
    timeout: float = Field(10.0, gt=0)
    max_concurrency: int = Field(5, ge=1)


class TenantSettings(_Settings):
    """All that distinguishes one tenant from another: configuration, never code."""

    tenant_id: str
    short_id: str
    system_prompt: str
    synonyms: dict[str, list[str]] = Field(default_factory=dict)
    protected_terms: list[str] = Field(default_factory=list)
    filters: FilterSettings = FilterSettings()
    rag: RagSettings = RagSettings()
    baseline: BaselineSettings = BaselineSettings()


class LengthSettings(_Settings):
    """Rewrite length in characters: above `target` each one costs `penalty`; above `cap` the gate closes."""

    target: int = Field(60, ge=1)
    penalty: float = Field(0.002, ge=0)
    cap: int = Field(500, ge=1)

    @model_validator(mode="after")
    def _target_below_cap(self) -> LengthSettings:
        if self.target > self.cap:
            raise ValueError(f"target ({self.target}) lies above cap ({self.cap})")
        return self


class BreakerSettings(_Settings):
    """Stop the run when more than `max_abstained` of the last `window` rollouts could not be scored."""

    max_abstained: float = Field(0.05, ge=0, le=1)
    window: int = Field(256, ge=1)


class RewardSettings(_Settings):
    """How a rewrite is scored. `formula` names a preset of `reward.formulas`."""

    formula: Literal["v1", "v2"] = "v2"
    adaptive_shaping: bool = False
    weight_retrieval: float = Field(0.6, ge=0)
    weight_judge: float = Field(0.4, ge=0)
    gate_floor: float = Field(-1.0, ge=-1, le=0)
    gates: tuple[GateReason, ...] = tuple(GateReason)
    length: LengthSettings = LengthSettings()
    top_k: int = Field(100, ge=1)
    breaker: BreakerSettings = BreakerSettings()
    policy_label: str = "8b"
    baseline_label: str = "32b"


class RewriterSettings(_Settings):
    """The `rewriter` node of a recipe: the tenant and its reward."""

    tenant: TenantSettings
    reward: RewardSettings = RewardSettings()


def parse_settings(values: dict[str, Any], source: str) -> RewriterSettings:
    """Validate the `rewriter` node of a composed recipe.

    Raises:
        BadInput: a key is unknown, missing or out of range (names `source` and the key).
    """
    try:
        return RewriterSettings.model_validate(values)
    except ValidationError as error:
        raise BadInput(f"{source}: {first_problem(error)}") from None


def load_tenant(name_or_path: str) -> TenantSettings:
    """The tenant of that name (`recipes/config/tenant/<name>.yaml`) or of that YAML file.

    Raises:
        BadInput: no such tenant, not YAML, or a key is unknown, missing or out of range.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = TENANT_CONFIGS / f"{name_or_path}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in TENANT_CONFIGS.glob("*.yaml")))
        raise BadInput(f"tenant {name_or_path!r}: no file {path} (known tenants: {known})")
    try:
        return TenantSettings.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise BadInput(f"{path}: not YAML: {str(error).splitlines()[0]}") from None
    except ValidationError as error:
        raise BadInput(f"{path}: {first_problem(error)}") from None
