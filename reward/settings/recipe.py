"""Typed settings of a tenant and of the reward, validated once at start-up. An unknown key is an error.

Secrets never appear here: a setting that needs one holds the *name* of an environment variable, because the
trainer prints its whole configuration and sends it to experiment trackers.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from reward.records.files import BadInput, first_problem
from reward.records.outcome import GateReason
from reward.settings.chat import ChatSettings, PriceSettings
from reward.settings.data import (
    AugmentSettings,
    DeidentifySettings,
    FilterSettings,
    SourceSettings,
    StrictSettings,
)
from reward.settings.expansion import ExpansionSettings
from reward.settings.medical import MedicalSettings
from reward.settings.promotion import PromotionSettings
from reward.settings.services import BaselineSettings, RagSettings
from reward.settings.targets import TargetSettings
from reward.settings.teacher import TeacherSettings
from reward.text.terms import Lexicon

CONFIGS = Path(__file__).resolve().parents[2] / "recipes" / "config"
TENANT_CONFIGS, JUDGE_CONFIGS = CONFIGS / "tenant", CONFIGS / "judge"


_S = TypeVar("_S", bound=StrictSettings)
TaskName = Literal["rewrite", "expansion", "medical"]
Language = Literal["zh", "en"]


class TenantSettings(StrictSettings):
    """All that distinguishes one tenant from another: configuration, never code.

    Args:
        language: of the prompt's labels and instruction (`data_prep.prompt`).
        protected_groups: name -> synonyms (孕妇: [怀孕, 孕期]): what no rewrite may add or lose, however spelled.
        products: name -> other names, held to the same.
        medical: the passages concern health: pages that show them to people carry a safety notice.
    """

    tenant_id: str
    short_id: str
    system_prompt: str
    language: Language = "zh"
    medical: bool = False
    synonyms: dict[str, list[str]] = Field(default_factory=dict)
    protected_groups: dict[str, list[str]] = Field(default_factory=dict)
    products: dict[str, list[str]] = Field(default_factory=dict)
    sources: SourceSettings = SourceSettings()
    filters: FilterSettings = FilterSettings()
    deidentify: DeidentifySettings = DeidentifySettings()
    augment: AugmentSettings = AugmentSettings()
    rag: RagSettings = RagSettings()
    baseline: BaselineSettings = BaselineSettings()
    targets: TargetSettings = TargetSettings()
    promotion: PromotionSettings = PromotionSettings()

    @model_validator(mode="before")
    @classmethod
    def _name_of_groups(cls, values: Any) -> Any:
        if isinstance(values, dict) and "protected_terms" in values:
            raise ValueError("protected_terms is no setting: write protected_groups, a name and its synonyms each")
        return values

    @model_validator(mode="after")
    def _groups_agree(self) -> TenantSettings:
        _ = self.lexicon  # raises where two groups claim one term
        return self

    @cached_property
    def lexicon(self) -> Lexicon:
        """The tenant's groups and products, made once."""
        return Lexicon.of(self.protected_groups, self.products)


class LengthSettings(StrictSettings):
    """Rewrite length in characters: above `target` each one costs `penalty`; above `cap` the gate closes."""

    target: int = Field(60, ge=1)
    penalty: float = Field(0.002, ge=0)
    cap: int = Field(500, ge=1)

    @model_validator(mode="after")
    def _target_below_cap(self) -> LengthSettings:
        if self.target > self.cap:
            raise ValueError(f"target ({self.target}) lies above cap ({self.cap})")
        return self


class RecitalSettings(StrictSettings):
    """Passage text learnt by heart (`reward.text.units.copied_run`): more than `free` new units in a row earn nothing
    and cost `penalty` each."""

    free: int = Field(8, ge=0)
    penalty: float = Field(0.05, ge=0)


class BreakerSettings(StrictSettings):
    """Stop the run when more than `max_abstained` of the last `window` rollouts could not be scored."""

    max_abstained: float = Field(0.05, ge=0, le=1)
    window: int = Field(256, ge=1)


class RewardSettings(StrictSettings):
    """How a rewrite is scored.

    Args:
        formula: a preset of `reward.rewrite.formulas`.
        near_copy: a rewrite with at most this share of new content is a near-copy of the query (formula v3).
        idle_penalty: what a unit that the passage found does not hold takes from a gain (formula v3).
        special_tokens: of the policy's tokenizer, that no rewrite may hold, beside the usual ones.
        reranker: the service's id of the only one that may judge hits of unknown relevance; "": the first that does is
            pinned for the run (`reward.rollouts.reranker_pin`).
        accept_lexical: train without known passages although no cross-encoder judges the hits (formula v3).
    """

    formula: Literal["v1", "v2", "v3"] = "v3"
    adaptive_shaping: bool = False
    weight_retrieval: float = Field(0.6, ge=0)
    weight_judge: float = Field(0.4, ge=0)
    gate_floor: float = Field(-1.0, ge=-1, le=0)
    gates: tuple[GateReason, ...] = tuple(GateReason)
    special_tokens: tuple[str, ...] = ()
    length: LengthSettings = LengthSettings()
    recital: RecitalSettings = RecitalSettings()
    near_copy: float = Field(0.1, ge=0, le=1)
    idle_penalty: float = Field(0.01, ge=0)
    reranker: str = ""
    accept_lexical: bool = False
    top_k: int = Field(100, ge=1)
    breaker: BreakerSettings = BreakerSettings()
    policy_label: str = "8b"
    baseline_label: str = "32b"


class BatchingSettings(StrictSettings):
    """Candidates of one prompt that arrive within `window` seconds of the first share one call, at most `candidates`
    of them."""

    window: float = Field(0.2, gt=0)
    candidates: int = Field(8, ge=2)


class JudgeSettings(ChatSettings):
    """An LLM judge behind an OpenAI-compatible chat API, and how it is asked: the model's profile.

    Args:
        mode: `pointwise` grades each rewrite alone, `batched` several rewrites of a prompt in one call, `pairwise`
            compares with the baseline's in both orders.
        prompt: version of the prompt files, `judge/prompts/<mode>-<prompt>.txt`.
        baseline_votes: the baseline's rewrite is graded that many times, once per prompt ever; the median counts.
    """

    response_format: Literal["json_object", "json_schema"] = "json_object"
    mode: Literal["pointwise", "batched", "pairwise"] = "pointwise"
    prompt: str = "v1"
    baseline_votes: int = Field(3, ge=1)
    batching: BatchingSettings = BatchingSettings()
    price: PriceSettings


class BudgetLimits(StrictSettings):
    """What may be spent at most; `None` is no limit. Money in yuan."""

    cny: float | None = Field(None, ge=0)
    calls: int | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=0)


class LedgerSettings(StrictSettings):
    """Where every call to a service is recorded, and what the paid ones may cost.

    `path` is a SQLite file, shared by all runs that name the same one; `run_id` is whose budget a call counts against.
    `shared`: with `process` one worker process does all scoring, with `ray` any number of workers on any node go
    through one named actor. Calls to the judge alone count against the budgets.
    """

    path: Path
    run_id: str
    cny_per_usd: float = Field(7.1, gt=0)
    run: BudgetLimits = BudgetLimits()
    day: BudgetLimits = BudgetLimits()
    shared: Literal["process", "ray"] = "process"


class HealthSettings(StrictSettings):
    """When the trainer's own metrics call for a warning, and whether it stops the run.

    Falls, rises and drifts compare the last `window` steps with the `window` before (`reward.rollouts.health`).
    """

    window: int = Field(20, ge=2)
    reward_fall: float = Field(0.05, gt=0)
    clip_fraction: float = Field(0.5, gt=0, le=1)
    value_loss_rise: float = Field(2.0, gt=1)
    kl: float = Field(0.5, gt=0)
    probability_gap: float = Field(0.01, gt=0)
    entropy_floor: float = Field(0.05, ge=0)
    length_drift: float = Field(1.5, gt=1)
    copy_rate: float = Field(0.5, gt=0, le=1)
    stop: bool = False


class CanarySettings(StrictSettings):
    """Human-labelled pairs that the judge grades again every `every_steps` steps: is it still the judge it was?

    `drift` is the fall of agreement (Cohen's kappa) from the first check that raises the alarm.
    """

    file: Path
    every_steps: int = Field(50, ge=1)
    drift: float = Field(0.2, gt=0)


class KeepBestSettings(StrictSettings):
    """Which saved checkpoint is the best: the one whose validation has the highest `metric`.

    A validation of which more than `max_abstained` could not be scored proves nothing.
    """

    metric: Literal["avg_reward", "win_rate", "avg_top1", "judge_score"] = "avg_reward"
    max_abstained: float = Field(0.05, ge=0, le=1)


class RewriterSettings(StrictSettings):
    """The `rewriter` node of a recipe: the task, its tenant and reward, the judge, what is recorded and watched."""

    task: TaskName = "rewrite"
    tenant: TenantSettings
    reward: RewardSettings = RewardSettings()
    expansion: ExpansionSettings = ExpansionSettings()
    judge: JudgeSettings | None = None
    ledger: LedgerSettings
    health: HealthSettings = HealthSettings()
    keep_best: KeepBestSettings = KeepBestSettings()
    canary: CanarySettings | None = None
    medical: MedicalSettings = MedicalSettings()
    teacher: TeacherSettings | None = None

    @field_validator("canary", "teacher", mode="before")
    @classmethod
    def _nothing_named_is_none(cls, node: Any) -> Any:
        # A composed recipe has every key: one without its first is not asked for.
        named = ("", "") if not isinstance(node, dict) else (node.get("file", ""), node.get("model", ""))
        return None if None in named else node

    @model_validator(mode="after")
    def _terms_fit(self) -> RewriterSettings:
        if self.judge is not None and self.reward.formula == "v1" and self.judge.mode == "pairwise":
            raise ValueError("judge.mode pairwise: formula v1 needs scores (pointwise or batched)")
        if self.reward.weight_retrieval + (self.reward.weight_judge if self.judge else 0) == 0:
            raise ValueError("reward.weight_retrieval: is 0, and there is no judge with a weight")
        if self.teacher is not None and self.task != "medical":
            raise ValueError(f"teacher: the task {self.task} asks none")
        if self.canary is not None and self.judge is None:
            raise ValueError("canary: there is no judge to check")
        if self.keep_best.metric == "judge_score" and self.judge is None:
            raise ValueError("keep_best.metric judge_score: there is no judge")
        return self


def parse_settings(values: dict[str, Any], source: str) -> RewriterSettings:
    """Validate the `rewriter` node of a composed recipe.

    Raises:
        BadInput: a key is unknown, missing or out of range (names `source` and the key).
    """
    return validated(RewriterSettings, values, source)


def parse_tenant(values: dict[str, Any], source: str) -> TenantSettings:
    """Validate the tenant node of a composed recipe that has no reward (distillation).

    Raises:
        BadInput: a key is unknown, missing or out of range (names `source` and the key).
    """
    return validated(TenantSettings, values, source)


def load_tenant(name_or_path: str) -> TenantSettings:
    """The tenant of that name (`recipes/config/tenant/<name>.yaml`) or of that YAML file.

    Raises:
        BadInput: no such tenant, not YAML, or a key is unknown, missing or out of range.
    """
    known = sorted(path.stem for path in TENANT_CONFIGS.glob("*.yaml"))
    return load_settings(TenantSettings, name_or_path, TENANT_CONFIGS, "tenant", f"known tenants: {', '.join(known)}")


def load_judge(name_or_path: str) -> JudgeSettings:
    """The judge profile of that name (`recipes/config/judge/<name>.yaml`) or of that YAML file.

    Raises:
        BadInput: no such profile, not YAML, or a key is unknown, missing or out of range.
    """
    known = sorted(path.stem for path in JUDGE_CONFIGS.glob("*.yaml") if path.stem != "none")
    return load_settings(JudgeSettings, name_or_path, JUDGE_CONFIGS, "judge", f"known profiles: {', '.join(known)}")


def load_settings(model: type[_S], name_or_path: str, folder: Path, what: str, known: str) -> _S:
    """Read the settings `<folder>/<name>.yaml`, or those of a YAML file.

    Args:
        what: a word for them in an error; `known` says which names there are.

    Raises:
        BadInput: no such file, not YAML, or a key is unknown, missing or out of range.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = folder / f"{name_or_path}.yaml"
    if not path.is_file():
        raise BadInput(f"{what} {name_or_path!r}: no file {path} ({known})")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise BadInput(f"{path}: not YAML: {str(error).splitlines()[0]}") from None
    return validated(model, values, str(path))


def validated(model: type[_S], values: Any, source: str) -> _S:
    """Validate `values` as settings of a class.

    Raises:
        BadInput: a key is unknown, missing or out of range (names `source` and the key).
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise BadInput(f"{source}: {first_problem(error)}") from None
