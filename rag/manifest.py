"""`manifest.json` of an index: whose it is, what is in it and what made it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rag.ingest import IngestError

MANIFEST, SHARD, EMBEDDER = "manifest.json", "shard", "embedder.npy"


class Manifest(BaseModel):
    """`*_id` name the code that made the index: an index is only searched by the same. `versions`: of libraries."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant_id: str = Field(min_length=1)
    kb_name: str = Field(min_length=1)
    passages: int = Field(ge=1)
    content_hash: str
    embedder_id: str
    embedder_dimension: int
    tokenizer_id: str
    store_id: str
    versions: dict[str, str]
    created_at: str

    def made_like(self, other: Manifest) -> bool:
        """Whether both describe the same passages of the same knowledge base, indexed by the same code."""
        incidental = {"versions", "created_at"}
        return self.model_dump(exclude=incidental) == other.model_dump(exclude=incidental)


def read_manifest(index: Path) -> Manifest:
    """
    Raises:
        IngestError: no index at `index`, or its manifest is damaged or of another layout.
    """
    path = index / MANIFEST
    if not path.is_file():
        raise IngestError(f"{index}: no index there (python -m rag.build_index --kb_dir … --out {index} builds one)")
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"]) or "manifest"
        raise IngestError(f"{path}: {field}: {problem['msg']}: build the index again") from None
