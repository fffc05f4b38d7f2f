"""The settings that a run was made with, read back from its folder for `reward.replay` and `reward.audit`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from reward.records.files import BadInput, first_problem
from reward.records.sample import Sample
from reward.settings.expansion import ExpansionSettings
from reward.settings.medical import MedicalSettings
from reward.settings.recipe import RewardSettings, TaskName, TenantSettings, load_tenant
from reward.settings.services import RagSettings
from reward.text.terms import Lexicon

COMPOSED = Path("recipe.yaml")  # written by recipes.launch, read by the trainer


@dataclass(frozen=True)
class RunSettings:
    """`source` says where they come from, for the reader. Without a recorded tenant each sample names its own.

    `has_judge`: a judge took part, or the teacher of the medical task.
    """

    source: str
    task: TaskName
    reward: RewardSettings
    tenant: TenantSettings | None
    has_judge: bool
    expansion: ExpansionSettings
    medical: MedicalSettings

    def lexicon_of(self, sample: Sample) -> Lexicon:
        """The lexicon of the sample's tenant.

        Raises:
            BadInput: the run's tenant is not recorded and the sample's is unknown here.
        """
        return (self.tenant or _known_tenant(sample.metadata.tenant_id)).lexicon


@lru_cache
def _known_tenant(tenant_id: str) -> TenantSettings:
    return load_tenant(tenant_id)


def load_run_settings(run: Path, file: Path | None, overrides: Sequence[str] = ()) -> RunSettings:
    """The run's reward and tenant settings: of `file` when given, else as recorded in the run, else the defaults.

    Args:
        file: a YAML file with the nodes `reward` and, optionally, `tenant`, or a recipe with them under `rewriter`.
        overrides: `key=value` of the reward settings, nested keys dotted, values in YAML.

    Raises:
        BadInput: a file cannot be read, or a key is unknown, missing or out of range (names file and key).
    """
    path = file or run / COMPOSED
    if file is None and not path.is_file():
        node, source = OmegaConf.create({}), "the defaults (the run has recorded none)"
    else:
        node, source = _rewriter_node(path), str(path)
    try:
        task: TaskName = node.get("task", "rewrite")
        # Overrides are of what the task is scored by.
        own = overrides if task == "medical" else ()
        medical = MedicalSettings.model_validate(_overridden(_values(node, "medical", source), own))
        others = () if task == "medical" else overrides
        reward = RewardSettings.model_validate(_overridden(_values(node, "reward", source), others))
        expansion = ExpansionSettings.model_validate(_values(node, "expansion", source))
        recorded = _values(node, "tenant", source)
        tenant = TenantSettings.model_validate(recorded) if recorded else None
    except ValidationError as error:
        raise BadInput(f"{source}: {first_problem(error)}") from None
    asked = bool(node.get("teacher" if task == "medical" else "judge"))
    return RunSettings(source, task, reward, tenant, has_judge=asked, expansion=expansion, medical=medical)


@dataclass(frozen=True)
class RecordedServices:
    """What judged a run's rollouts, as its recipe names it.

    Args:
        judge_model: "" where no judge took part.
        start_from: the model that training began with.
        asks_retriever: whether its reward asked the retrieval service; SFT and the medical task ask none.
    """

    judge_model: str
    judge_version: str
    kb_name: str
    kb_version: str
    start_from: str
    asks_retriever: bool = True


def load_recorded_services(run: Path) -> RecordedServices | None:
    """Return the judge and the knowledge base that `<run>/recipe.yaml` names, None where no recipe of ours is there.

    Raises:
        BadInput: the file cannot be read.
    """
    path = run / COMPOSED
    if not path.is_file():
        return None
    recipe = _load(path)
    if not isinstance(recipe, DictConfig) or not isinstance(recipe.get("rewriter"), DictConfig):
        return None
    judge, tenant = (_values(recipe.rewriter, key, str(path)) for key in ("judge", "tenant"))
    rag, trained = tenant.get("rag") or {}, _values(recipe, "recipe", str(path))
    return RecordedServices(
        judge_model=str(judge.get("model") or ""),
        judge_version=str(judge.get("version") or ""),
        kb_name=str(rag.get("kb_name") or RagSettings.model_fields["kb_name"].default),
        kb_version=str(rag.get("kb_version") or ""),
        start_from=str(trained.get("start_from") or ""),
        asks_retriever=trained.get("trainer") != "sft" and recipe.rewriter.get("task") != "medical",
    )


def _load(path: Path) -> Any:
    try:
        return OmegaConf.load(path)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise BadInput(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None


def _rewriter_node(path: Path) -> DictConfig:
    config = _load(path)
    node = config.get("rewriter", config) if isinstance(config, DictConfig) else None
    if not isinstance(node, DictConfig):
        raise BadInput(f"{path}: expected the keys `reward` and `tenant`, or a recipe with them under `rewriter`")
    return node


def _values(node: DictConfig, key: str, source: str) -> dict[str, Any]:
    """The sub-node, its interpolations resolved; empty when there is none."""
    try:
        value = node.get(key)
        plain = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except OmegaConfBaseException as error:
        raise BadInput(f"{source}: {key}: {str(error).splitlines()[0]}") from None
    if plain is not None and not isinstance(plain, dict):
        raise BadInput(f"{source}: {key}: expected keys and values")
    return {str(name): setting for name, setting in (plain or {}).items()}


def _overridden(values: dict[str, Any], overrides: Sequence[str]) -> Any:
    merged = OmegaConf.create(values)
    for override in overrides:
        key, found, value = override.partition("=")
        if not found:
            raise BadInput(f"--set {override}: expected key=value")
        try:
            OmegaConf.update(merged, key.strip(), yaml.safe_load(value), force_add=True)
        except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError):
            raise BadInput(f"--set {override}: not a key and a YAML value") from None
    return OmegaConf.to_container(merged)
