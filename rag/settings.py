"""What an operator sets: one YAML file for the service and its tenants (`python -m rag.serve --settings FILE`).

    retriever: http://embedder:8000/v1#multilingual-e5-large    # its prompts by its name, or ?prompts=e5
    language_model: {url: "http://llm:8000/v1", model: qwen3-8b}
    default: {requests_per_minute: 600}
    tenants:
      fivedoctors: {rewriter_url: "http://rewriter:7861", max_passages: 200000, channels: {query2doc: false}}

Unknown keys are errors. Secrets appear only as names of environment variables.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from guard.service_url import ModelAddress, ServiceUrl
from rag.documents.records import IngestError
from rag.models.embedder import DEFAULT_RETRIEVER
from rag.models.language_model import LanguageModelSettings
from rag.models.prompts import with_prompts
from rag.retrieval.channels import Channels

HOST = r"^(\*|(\*\.)?[^*]+)$"  # a name, *.name, or * for any


class TenantSettings(BaseModel):
    """One tenant's. What `default` sets holds for a tenant that does not set it itself, channel by channel."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rewriter_url: ServiceUrl | None = Field(default=None, description="asked for a rewrite when a request brings none")
    rewriter_timeout: float = Field(default=2, gt=0, description="seconds before its answer is given up")
    channels: Channels = Channels()
    requests_per_minute: int | None = Field(
        default=None, ge=1, description="in any 60 seconds; a worker counts its own"
    )
    max_passages: int | None = Field(
        default=None, ge=1, description="passages and their questions, over all knowledge bases of the tenant"
    )
    max_knowledge_bases: int = Field(default=100, ge=1)
    max_clicks: int = Field(default=200_000, ge=1, description="of each knowledge base")
    log_query_text: bool = False


class ServiceSettings(BaseModel):
    """The service's. The command line's options are written over it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default: TenantSettings = TenantSettings()
    tenants: dict[str, TenantSettings] = {}
    retriever: ModelAddress = Field(
        default=DEFAULT_RETRIEVER,
        description="keyword (no vectors), hashing, a model's folder, or URL#model (rag.models.prompts)",
    )
    query_prompt: str = Field(default="", description="before a query, where no preset has it")
    passage_prompt: str = Field(default="", description="before a passage; a change needs the indexes built again")
    reranker: ModelAddress | None = Field(
        default=None, description="a CrossEncoder folder, or [logits:]URL#model of /v1/rerank"
    )
    rerank_part: float = Field(
        default=1, ge=0, le=1, description="its part of the order where none was fitted; 0: it only scores the hits"
    )
    rerank_timeout: float = Field(default=10, gt=0, description="seconds; then the fused order is given, which says so")
    language_model: LanguageModelSettings | None = None
    query2doc_timeout: float = Field(default=0.3, gt=0, description="seconds for a pseudo-document as a whole")
    top_k: int = Field(default=30, ge=1, le=200, description="candidates of each channel")
    max_body_mb: float = Field(default=20, gt=0, description="of a document; other requests may have 1 MB")
    allowed_hosts: list[Annotated[str, Field(pattern=HOST)]] = Field(
        default=[], description="names that a service without keys answers to, beside localhost: name, *.name, or *"
    )
    body_seconds: float = Field(default=30, gt=0, description="in which a request's body must have arrived")

    @model_validator(mode="before")
    @classmethod
    def _tenants_inherit(cls, values: Any) -> Any:
        """Lay each tenant's values over those of `default`."""
        if not isinstance(values, dict) or not isinstance(values.get("tenants"), dict):
            return values
        default = values.get("default")
        if not isinstance(default, dict):
            return values
        tenants = {name: _laid_over(default, tenant) for name, tenant in values["tenants"].items()}
        return {**values, "tenants": tenants}

    @property
    def embedder(self) -> str:
        """The retriever with its prompts, as `embedder_maker` and `rag.build_index --retriever` take it."""
        return with_prompts(self.retriever, self.query_prompt, self.passage_prompt)

    def tenant(self, tenant_id: str) -> TenantSettings:
        return self.tenants.get(tenant_id, self.default)


def read_settings(file: Path | None, options: Mapping[str, Any] | None = None) -> ServiceSettings:
    """Read the file's settings and write `options` (as the file could hold them) over them.

    Raises:
        IngestError: the file cannot be read, is not YAML, or a key is unknown or out of range.
    """
    values: Any = {}
    if file is not None:
        try:
            values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError) as error:
            raise IngestError(f"{file}: cannot be read ({error})") from None
        except yaml.YAMLError as error:
            raise IngestError(f"{file}: not YAML: {str(error).splitlines()[0]}") from None
        if not isinstance(values, dict):
            raise IngestError(f"{file}: holds no settings")
    options = dict(options or {})
    language_model = _language_model(file, values.get("language_model"), options.pop("language_model", {}))
    default = _laid_over(values.get("default") or {}, options.pop("default", {}))
    try:
        return ServiceSettings.model_validate(
            {**values, **options, "default": default, "language_model": language_model}
        )
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"]) or "settings"
        raise IngestError(f"{file or 'options'}: {field}: {problem['msg']}") from None


def model_options(url: str | None, model: str | None) -> dict[str, str]:
    """Return what a command line gives of the language model, as `read_settings` takes it."""
    return {name: value for name, value in (("url", url), ("model", model)) if value is not None}


def _language_model(file: Path | None, in_file: Any, options: Mapping[str, Any]) -> Any:
    """Write the command line's endpoint and model over the file's.

    Raises:
        IngestError: the one is given without the other.
    """
    if not options or not isinstance(in_file, dict | None):
        return in_file
    merged = {**(in_file or {}), **options}
    for name, option in (("url", "--llm-url"), ("model", "--rewrite-model")):
        if not merged.get(name):
            raise IngestError(f"no {option}, and no language_model.{name} in {file or '--settings'}")
    return merged


def _laid_over(default: Any, tenant: Any) -> Any:
    if tenant is None:
        return default
    if not isinstance(tenant, dict) or not isinstance(default, dict):
        return tenant
    merged = {**default, **tenant}
    if isinstance(default.get("channels"), dict) and isinstance(tenant.get("channels"), dict):
        merged["channels"] = {**default["channels"], **tenant["channels"]}
    return merged
