"""One row of a BVT batch test (`test_sft.xlsx`): what was asked, what came back, and the order of columns."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from reward.records.sample import Context, Hit

NO_HIT = "no hit came back"  # in `error`: the service answered, and found nothing


class BvtRow(BaseModel):
    """Scores are in [0, 1]. `recall_results` is None when the call failed or was not made yet; no hit is an answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    original_query: str
    user_profile: str = ""
    history_summary: str = ""
    rewritten_query: str = ""
    recall_results: tuple[Hit, ...] | None = None
    recall_count: int | None = None
    top1_score: float | None = None
    avg_top3_score: float | None = None
    success: bool = False
    query_id: str = ""
    history_context: str = ""
    slices: tuple[str, ...] = ()
    error: str = ""

    @property
    def context(self) -> Context:
        return Context(
            user_profile=self.user_profile,
            history_summary=self.history_summary,
            history_context=self.history_context,
        )


# The columns of the workbook are the fields, in their order. The first nine are in every BVT export.
COLUMNS = tuple(BvtRow.model_fields)
EXPORT_COLUMNS = COLUMNS[:9]
