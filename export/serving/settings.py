"""What the drop-in serves: typed settings of its YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import yaml
from pydantic import Field, ValidationError, model_validator

from guard.service_url import ServiceUrl
from reward.records.files import BadInput, first_problem
from reward.settings.data import StrictSettings

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class RewriterSettings(StrictSettings):
    """One rewriter; exactly one of the first four is given.

    Args:
        model: Hugging Face folder, served by a vLLM that the drop-in starts.
        registry: folder of `<tenant>/champion.json`: the champion is served, and swapped when that file changes.
        chat_url: `…/v1` of an OpenAI-compatible server that runs already.
        url: a service with `POST /api/rewrite_query`, such as the deployed 32B.
        served_model: its name at `chat_url`.
        max_new_tokens: None: as many as the model's rollouts had (its run.json); `chat_url` needs a number.
        max_prompt_tokens: longer prompts are not rewritten; 1024 is what the recipes train with.
        gpu_memory_utilization: share of a card that one vLLM takes; a swap needs two of them for a while.
        api_key_env: environment variable with the key of `chat_url` or `url`.
    """

    model: Path | None = None
    registry: Path | None = None
    chat_url: ServiceUrl | None = None
    url: ServiceUrl | None = None
    served_model: str = "rewriter"
    max_new_tokens: int | None = Field(None, ge=1)
    max_prompt_tokens: int = Field(1024, ge=16)
    gpu_memory_utilization: float = Field(0.45, gt=0, le=1)
    api_key_env: str | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = ("model", "registry", "chat_url", "url")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(kinds)}; found {', '.join(given) or 'none'}")
        if self.chat_url is not None and self.max_new_tokens is None:
            raise ValueError("chat_url needs max_new_tokens: no run.json is at hand")
        return self


class ExperimentSettings(StrictSettings):
    """A/B test: `share` of the users get the rewriter `arm`, the others the tenant's `answer`. A new test has a new
    `name`: it draws the users anew."""

    name: str = Field(pattern=NAME)
    arm: str
    share: float = Field(ge=0, le=1)


class ShadowSettings(StrictSettings):
    """`share` of the requests go to `rewriter` too, after they are answered; its rewrite is logged, never shown."""

    rewriter: str
    share: float = Field(1.0, ge=0, le=1)
    max_concurrency: int = Field(16, ge=1)


class InterleaveSettings(StrictSettings):
    """`POST /api/chat/general_rag`: for `share` of the users the hits of the tenant's `answer` (team a) and of
    `rewriter` (team b) are interleaved."""

    name: str = Field(pattern=NAME)
    rewriter: str
    share: float = Field(1.0, gt=0, le=1)


class TenantServing(StrictSettings):
    """How one tenant is served.

    Args:
        tenant: YAML file of the tenant's settings; None: `recipes/config/tenant/<its id>.yaml`.
        answer: the rewriter whose answer counts where no experiment says otherwise.
        timeout: seconds until the original query is the answer.
    """

    tenant: Path | None = None
    rewriters: dict[str, RewriterSettings] = Field(min_length=1)
    answer: str
    timeout: float = Field(1.5, gt=0, le=60)
    experiment: ExperimentSettings | None = None
    shadow: ShadowSettings | None = None
    interleave: InterleaveSettings | None = None

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        named = {"answer": self.answer}
        if self.experiment:
            named["experiment.arm"] = self.experiment.arm
        if self.shadow:
            named["shadow.rewriter"] = self.shadow.rewriter
        if self.interleave:
            named["interleave.rewriter"] = self.interleave.rewriter
        for key, name in named.items():
            if name not in self.rewriters:
                raise ValueError(f"{key}: no rewriter {name!r} (there are {', '.join(sorted(self.rewriters))})")
            if key not in ("answer", "shadow.rewriter") and name == self.answer:
                raise ValueError(f"{key}: {name!r} is the answer already")
        return self


class ServingSettings(StrictSettings):
    """Args:
    tenants: tenant id → how it is served.
    log: folder of the outcome log, the vLLM logs and the fingerprints of models.
    log_texts: whether queries and rewrites are in the outcome log, personal data masked.
    max_in_flight: requests under way; above it the original query is the answer at once.
    """

    tenants: dict[str, TenantServing] = Field(min_length=1)
    log: Path = Path("outputs/serving")
    log_texts: bool = True
    max_in_flight: int = Field(256, ge=1)


def read_settings(path: Path) -> ServingSettings:
    """Read the YAML file of the drop-in.

    Raises:
        BadInput: the file is missing, not YAML, or a key is unknown, missing or out of range.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        return ServingSettings.model_validate(values)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not YAML: {str(error).splitlines()[0]}") from None
    except ValidationError as error:
        raise BadInput(f"{path}: {first_problem(error)}") from None
