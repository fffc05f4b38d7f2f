"""Composes a recipe: verl's defaults, our YAML, the typed defaults of the node `rewriter`, and the user's overrides.

Everything that can be set is a key of the composed recipe, so every override works without `+`, and a key that does not
exist is an error.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from reward.records.files import BadInput
from reward.settings.recipe import RewriterSettings, TenantSettings

CONFIG_DIR = Path(__file__).resolve().parent / "config"
RECIPES = sorted(path.stem for path in CONFIG_DIR.glob("*.yaml"))


def typed_defaults(model: type[BaseModel]) -> dict[str, Any]:
    """Every key of the settings with its default; `None` where a value is required.

    >>> typed_defaults(LengthSettings)
    {'target': 60, 'penalty': 0.002, 'cap': 500}
    """
    defaults = {}
    for name, field in model.model_fields.items():
        nested = _settings_type(field.annotation)
        if nested is not None:
            defaults[name] = typed_defaults(nested)
        else:
            value = None if field.is_required() else field.get_default(call_default_factory=True)
            defaults[name] = to_jsonable_python(value)
    return defaults


def _settings_type(annotation: Any) -> type[BaseModel] | None:
    """The settings class of a field `X` or `X | None`; `None` for a plain value."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def frozen_modules(layers: int) -> str | None:
    """Make the pattern of the modules that stay as they are: the embedding and the lowest `layers` blocks.

    PEFT gives no adapter to a module whose whole name matches; `verl_cpu.engines` freezes it where every weight trains.

    >>> frozen_modules(2)
    '(.*\\\\.)?(embed_tokens|layers\\\\.(0|1))(\\\\..*)?'
    """
    if not layers:
        return None
    numbers = "|".join(map(str, range(layers)))
    return rf"(.*\.)?(embed_tokens|layers\.({numbers}))(\..*)?"


OmegaConf.register_new_resolver("frozen_modules", frozen_modules, replace=True)
_store = ConfigStore.instance()
_store.store("rewriter_defaults", {"rewriter": typed_defaults(RewriterSettings)}, package="_global_")
_store.store("tenant_defaults", {"rewriter": {"tenant": typed_defaults(TenantSettings)}}, package="_global_")


def compose_recipe(name: str, overrides: list[str]) -> DictConfig:
    """The recipe as verl will see it, every reference resolved.

    Args:
        name: a file of `recipes/config`, e.g. `ppo`.
        overrides: Hydra overrides, e.g. `tenant=fivedoctors` or `recipe.rl.actor_lr=2e-6`.

    Raises:
        BadInput: no such recipe, no tenant, or an override that does not fit.
    """
    if name not in RECIPES:
        raise BadInput(f"recipe {name!r}: no such recipe (known: {', '.join(RECIPES)})")
    # By its path: `pkg://verl.trainer.config` would import verl, and with it torch and Ray.
    search_path = f"hydra.searchpath=['file://{_verl_folder() / 'trainer' / 'config'}']"
    try:
        with initialize_config_dir(str(CONFIG_DIR), version_base=None):
            config = compose(name, overrides=[search_path, *overrides])
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise BadInput(f"recipe {name}: {_problem(error)}") from None
    return config


def recipe_yaml(config: DictConfig) -> str:
    """The composed recipe as YAML, our own nodes first."""
    whole = plain(config)
    return OmegaConf.to_yaml(
        OmegaConf.create({key: whole[key] for key in dict.fromkeys(["recipe", "rewriter", *whole])})
    )


def plain(node: DictConfig) -> dict[str, Any]:
    """The node as plain dicts, lists and scalars."""
    values = OmegaConf.to_container(node, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _verl_folder() -> Path:
    found = find_spec("verl")
    if found is None or not found.submodule_search_locations:
        raise BadInput("verl is not installed: run bash requirements/create_environment.sh")
    return Path(found.submodule_search_locations[0])


def _problem(error: Exception) -> str:
    """Hydra's many lines as one."""
    message = str(error).splitlines()[0]
    unknown = re.match(r"Could not override '(.+)'", message)
    if unknown:
        key = unknown.group(1)
        hint = "; choose a judge with judge=NAME first" if key.startswith("rewriter.judge.") else ""
        return f"{key}: no such setting{hint}"
    if message.startswith("You must specify 'tenant'"):
        return f"tenant=NAME is missing (known: {_choices('tenant')})"
    choice = re.search(r"Could not find '(\w+)/(.+)'", message)
    if choice and (CONFIG_DIR / choice[1]).is_dir():
        return f"{choice[1]}={choice[2]}: no such choice (known: {_choices(choice[1])})"
    return message


def _choices(group: str) -> str:
    return ", ".join(sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml")))
