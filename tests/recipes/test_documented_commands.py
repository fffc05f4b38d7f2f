"""Every command and every setting that the documentation names composes as it is written there."""

import re
import shlex
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from recipes.checks.settings import check_settings
from recipes.compose import RECIPES, compose_recipe
from tests.support import ROOT

DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "recipes/*.md", "examples/*/*.md", "docker/Dockerfile", "recipes/run.sh")
    for path in ROOT.glob(pattern)
)
GROUPS = ("tenant", "judge", "machine", "model", "train")
NODES = ("rewriter", "recipe", "trainer", "reward", "data", "actor_rollout_ref", "algorithm", "critic")
_COMMAND = re.compile(r"(?:recipes/(?P<script>\w+)\.sh|-m recipes\.(?:preflight|launch)) (?P<rest>.*)")
_SETTING = re.compile(rf"(?<![\w./+])(?P<key>(?:{'|'.join(NODES)})\.[\w.]+|{'|'.join(GROUPS)})=(?P<value>[^\s`,;)]+)")
_NAMED = re.compile(rf"`(?P<key>(?:{'|'.join(NODES)})\.[a-z_]+(?:\.[a-z_0-9]+)*)`")
_MODULES = re.compile(r"\.(py|yaml|md)$")


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8").replace("\\\n", " ")


def commands() -> list[tuple[str, str, tuple[str, ...]]]:
    """(document, recipe, overrides) of every command line that starts or checks a recipe."""
    found = []
    for path in DOCUMENTS:
        for line in text_of(path).splitlines():
            match = _COMMAND.search(line)
            if match is None or line.lstrip("# ").startswith(("usage:", "exec")):
                continue
            words = shlex.split(match["rest"].split("`")[0], comments=True)
            words = [word for word in words if "=" in word or word in RECIPES]
            script = match["script"]
            if script and script not in ("run", "submit"):
                tenant, _, recipe = script.rpartition("_")
                words = [recipe, f"tenant={tenant}", *words]
            if words:
                found.append((str(path.relative_to(ROOT)), words[0], tuple(words[1:])))
    return found


def settings() -> list[tuple[str, str]]:
    """(key, value) of every override in running text; a value that only shows where one goes is left out."""
    found = {(m["key"], m["value"].rstrip(".")) for path in DOCUMENTS for m in _SETTING.finditer(text_of(path))}
    return sorted((key, value) for key, value in found if not value.endswith("…") and not value.isupper())


def test_the_documentation_has_commands_and_settings():
    assert len(commands()) > 10 and len(settings()) > 20
    assert {"README.md", "README.zh.md"} <= {document for document, _, _ in commands()}


@pytest.mark.parametrize(("recipe", "overrides"), sorted({(recipe, overrides) for _, recipe, overrides in commands()}))
def test_a_documented_command_composes(recipe, overrides):
    check_settings(recipe, compose_recipe(recipe, list(overrides)))


@pytest.mark.parametrize(("group", "choice"), [setting for setting in settings() if setting[0] in GROUPS])
def test_a_documented_choice_composes(group, choice):
    recipe = "sft" if choice == "gpu1" else "grpo"
    check_settings(recipe, compose_recipe(recipe, ["tenant=fivedoctors", f"{group}={choice}"]))


def test_the_documented_overrides_compose_all_together():
    overrides = [f"{key}={value}" for key, value in settings() if key not in GROUPS]
    distillation = [override for override in overrides if override.startswith("recipe.sft.")]
    competition = [override for override in overrides if override not in distillation]
    assert competition
    compose_recipe("sft", ["tenant=fivedoctors", *distillation])
    check_settings("grpo", compose_recipe("grpo", ["tenant=fivedoctors", "judge=gpt5", *competition]))


def test_every_setting_that_a_text_names_exists():
    shown = {name: compose_recipe(name, ["tenant=fivedoctors"]) for name in ("sft", "ppo")}
    shown["judged"] = compose_recipe("grpo", ["tenant=fivedoctors", "judge=gpt5"])
    unknown = [
        f"{path.name}: {match['key']}"
        for path in DOCUMENTS
        for match in _NAMED.finditer(text_of(path))
        if not _MODULES.search(match["key"])
        and not any(_has(config, match["key"]) for config in shown.values())
        and not (ROOT / match["key"].replace(".", "/")).with_suffix(".py").is_file()
    ]
    assert not unknown


def _has(config, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent)
    return OmegaConf.is_dict(node) and name in node
