"""The medical settings of a run or of a file, for the commands that score without a run's log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from reward.records.files import BadInput
from reward.settings.medical import MedicalSettings
from reward.settings.recipe import validated


def load_medical_settings(run: Path | None, file: Path | None) -> MedicalSettings:
    """Return the node `medical` of a YAML file, else of a run's recorded recipe, else the defaults.

    Raises:
        BadInput: a file cannot be read, or a key is unknown or out of range (names file and key).
    """
    path = file or (run / "recipe.yaml" if run is not None else None)
    if path is None:
        return MedicalSettings()
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not YAML: {str(error).splitlines()[0]}") from None
    node = values.get("rewriter", values) if isinstance(values, dict) else None
    if not isinstance(node, dict):
        raise BadInput(f"{path}: expected the key `medical`, or a recipe with it under `rewriter`")
    return validated(MedicalSettings, node.get("medical") or {}, str(path))
