"""What a tenant's own data looks like and which of it is good enough: part of the tenant's settings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from guard.personal.kinds import ALL_KINDS, PersonalKind


class StrictSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceSettings(StrictSettings):
    """How this tenant's exports name things, beyond what is understood anyway.

    Args:
        headings: heading in a workbook or CSV file → column name (`data_prep.rows.columns`).
        log_paths: column name → JSON paths in a log line (`payload.query`; a leading `$.` is fine), of which the first
            that holds something counts; they come before the built-in ones.
        log_days: of production logs, this many days before the newest line (or `--until`) are taken.
    """

    headings: dict[str, str] = Field(default_factory=dict)
    log_paths: dict[str, list[str]] = Field(default_factory=dict)
    log_days: int = Field(30, ge=1)


class FilterSettings(StrictSettings):
    """Which rows of an export are good enough to imitate . Lengths in characters, inclusive.

    Args:
        keep_unscored: whether a row whose retrieval was never recorded passes the score filter.
        near_duplicate: queries at least this alike (Jaccard similarity of their character pairs) are the same question;
            `None` leaves all but exact copies in.
    """

    min_top1_score: float = Field(0.6, ge=0, le=1)
    keep_unscored: bool = False
    query_length: tuple[int, int] = (2, 200)
    rewrite_length: tuple[int, int] = (2, 500)
    max_length_ratio: float = Field(5.0, gt=0)
    near_duplicate: float | None = Field(0.8, ge=0.6, le=1)

    @field_validator("query_length", "rewrite_length")
    @classmethod
    def _ascending(cls, bounds: tuple[int, int]) -> tuple[int, int]:
        if not 0 <= bounds[0] <= bounds[1]:
            raise ValueError(f"{bounds[0]} to {bounds[1]} is no range of lengths")
        return bounds


class DeidentifySettings(StrictSettings):
    """Which personal data is masked in every free text. `keep` lists texts that only look like it (product codes)."""

    kinds: tuple[PersonalKind, ...] = ALL_KINDS
    keep: tuple[str, ...] = ()


class AugmentSettings(StrictSettings):
    """Synonym-swapped copies of training samples: of which share of them, each word with which probability."""

    share: float = Field(1 / 3, ge=0, le=1)
    swap_probability: float = Field(0.3, ge=0, le=1)
