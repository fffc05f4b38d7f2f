"""Which retriever a run was trained on, in `<output>/retriever.json`: promotion holds a model to it.

    {"retrievers": [{"from_step": 0, "index": {"version": 3, "revision": 12, ...}}, ...]}

One entry as long as the retriever stays the same; `index` is null where the service does not describe it.
"""

from __future__ import annotations

import json
from pathlib import Path

from reward.records.files import write_json
from reward.records.run_files import RETRIEVER_FILE
from reward.services.served_index import read_index
from reward.settings.recipe import TenantSettings


def record_retriever(output: Path, tenant: TenantSettings, step: int) -> None:
    """Ask the service what it is, and add it where it differs from the last entry. Call it before and after training.

    Args:
        step: the last one taken; entries of later steps are dropped, they are taken again.
    """
    path = output / RETRIEVER_FILE
    index = read_index(tenant.rag, tenant.tenant_id)
    met = [entry for entry in _read(path) if entry["from_step"] <= step]
    # A service that says nothing after it has described itself is down: that is no other retriever.
    if not met or (index is not None and index != met[-1]["index"]):
        met.append({"from_step": step, "index": index})
    write_json(path, {"retrievers": met})


def _read(path: Path) -> list[dict]:
    """Read the entries; of a damaged file none: what was met before is not known, and a null entry says so."""
    if not path.is_file():
        return []
    try:
        met = json.loads(path.read_text(encoding="utf-8"))["retrievers"]
        return [{"from_step": int(entry["from_step"]), "index": entry["index"]} for entry in met]
    except (OSError, ValueError, KeyError, TypeError):
        return [{"from_step": 0, "index": None}]
