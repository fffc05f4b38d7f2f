"""The champion of a registry: the model that a tenant is to be served with. The promotion writes it."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ValidationError

from export.versions.registry import CHAMPION_FILE
from reward.records.files import BadInput, first_problem


class Champion(BaseModel):
    """`model` is a Hugging Face folder, absolute or relative to where the drop-in runs; `model_sha256` as
    `evaluation.systems.model_hash` has it."""

    version: str
    model: Path
    model_sha256: str
    decided_at: str = ""


def champion_file(registry: Path, tenant_id: str) -> Path:
    return registry / tenant_id / CHAMPION_FILE


def read_champion(registry: Path, tenant_id: str) -> Champion:
    """Read a tenant's champion.

    Raises:
        BadInput: there is none, or the file holds something else.
    """
    path = champion_file(registry, tenant_id)
    try:
        return Champion.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise BadInput(f"{path}: no champion yet (python -m export.promote makes one)") from None
    except (OSError, ValueError) as error:
        problem = first_problem(error) if isinstance(error, ValidationError) else "not a JSON object"
        raise BadInput(f"{path}: {problem}") from None
