"""Repeating the prompts on which the deployed rewriter fails."""

import pytest

from data_prep.build_rl import is_hard, repeat_hard
from reward.records import Candidates, Hit, Metadata, RetrievalResults, Sample


def sample(name: str, first_hit: str | None, relevant: tuple[str, ...] = ("good",)) -> Sample:
    hits = () if first_hit is None else (Hit(content="", doc_id=first_hit), Hit(content="", doc_id="good"))
    return Sample(
        sample_id=name,
        original_query="q",
        metadata=Metadata(tenant_id="t"),
        candidates=Candidates(baseline="b"),
        retrieval_results=RetrievalResults(baseline=hits),
        relevant_doc_ids=relevant,
    )


@pytest.mark.parametrize(
    ("first_hit", "relevant", "hard"),
    [("good", ("good",), False), ("bad", ("good",), True), (None, ("good",), True), ("bad", (), False)],
)
def test_is_hard(first_hit, relevant, hard):
    assert is_hard(sample("s", first_hit, relevant)) is hard


@pytest.mark.parametrize(("share", "hard_rows"), [(0.0, 2), (0.2, 2), (0.5, 8), (0.67, 16)])
def test_hard_prompts_reach_their_share_and_nothing_is_lost(share, hard_rows):
    samples = [sample(f"e{i}", "good") for i in range(8)] + [sample(f"h{i}", "bad") for i in range(2)]
    rows = repeat_hard(samples, share)
    assert rows[:10] == samples
    assert sum(map(is_hard, rows)) == hard_rows and len(rows) == 8 + hard_rows


def test_without_a_hard_prompt_nothing_is_repeated():
    samples = [sample("e", "good")]
    assert repeat_hard(samples, 0.5) == samples
