"""One row of a BVT batch test (`test_sft.xlsx`, spec 1): what was asked, what came back, and the order of columns."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from reward.records.sample import Context, Hit

# Spec 1's columns in spec 1's order; what we add comes after them.
COLUMNS = (
    "original_query",
    "user_profile",
    "history_summary",
    "rewritten_query",
    "recall_results",
    "recall_count",
    "top1_score",
    "avg_top3_score",
    "success",
    "query_id",
    "history_context",
    "slices",
    "error",
)
NO_HIT = "no hit came back"  # in `error`: the service answered, and found nothing


class BvtRow(BaseModel):
    """Scores lie in [0, 1]. `recall_results` is None when the call failed or was not made yet; no hit is an answer."""

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
