"""What a tenant asks of a model before it replaces the one in service (`export.promote`)."""

from __future__ import annotations

from pydantic import Field

from reward.settings.data import StrictSettings


class SafetySettings(StrictSettings):
    """Floors that no gain elsewhere pays for and no forced promotion passes.

    Args:
        judge: dimension of the judge (1-5) -> lowest mean.
        slices: slice -> lowest mean of the headline metric (MRR@10, or the score of the first hit).
    """

    judge: dict[str, float] = Field(default_factory=lambda: {"intent_kept": 4.0})
    slices: dict[str, float] = Field(default_factory=dict)


class PromotionSettings(StrictSettings):
    """The rules of a promotion. `null` switches a rule off; the decision says so.

    Args:
        win_rate: what the win rate's interval must lie above, against the baseline and the champion.
        judge_win_rate: the same for the judge's win rate, corrected by human labels where there are any.
        slice_loss: how much lower the headline metric of a slice may be, interval included.
        smallest_slice: queries; a smaller slice can reject and is too small to hold.
        harmed_share: share of queries that the model may leave worse than the customer's own words, interval included.
        latency_p50_ms, latency_p95_ms: of one rewrite.
        cost_per_1000_usd: of a thousand rewrites.
        queries: how many held-out queries must have been compared.
        abstained_share: share of them that may have been left out because a service, or the judge, failed.
        audit: whether `reward.audit` must be silent about the training run.
        same_retriever: whether the retriever must be the one of the training.
        key_env: name of the environment variable that holds the key of the ledger's signatures.
    """

    win_rate: float | None = Field(0.5, ge=0.5, lt=1)
    judge_win_rate: float | None = Field(0.5, ge=0.5, lt=1)
    slice_loss: float | None = Field(0.05, ge=0)
    smallest_slice: int = Field(30, ge=1)
    safety: SafetySettings = SafetySettings()
    harmed_share: float | None = Field(0.15, ge=0, le=1)
    latency_p50_ms: float | None = Field(350, gt=0)
    latency_p95_ms: float | None = Field(850, gt=0)
    cost_per_1000_usd: float | None = Field(0.85, gt=0)
    queries: int = Field(30, ge=1)
    abstained_share: float = Field(0.05, ge=0, le=1)
    audit: bool = True
    same_retriever: bool = True
    key_env: str = Field("PROMOTION_KEY", min_length=1)
