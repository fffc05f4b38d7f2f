"""Repeating the prompts on which the deployed rewriter fails."""

import pyarrow.parquet as pq
import pytest

from data_prep.build_rl import hard_repeats, is_hard, write_split
from reward.records.sample import Candidates, Hit, Metadata, RetrievalResults, Sample, read_samples
from reward.settings.recipe import load_tenant


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
def test_hard_prompts_reach_their_share_and_nothing_is_lost(tmp_path, share, hard_rows):
    samples = [sample(f"e{i}", "good") for i in range(8)] + [sample(f"h{i}", "bad") for i in range(2)]
    _, counts = write_split(tmp_path, "train", lambda: samples, load_tenant("fivedoctors"), share)
    assert counts == {"samples": 10, "hard": 2, "judged": 10, "rows": 8 + hard_rows, "without_rewrite": 0}
    infos = pq.read_table(tmp_path / "rl_train.parquet")["extra_info"].to_pylist()
    rows = [Sample.from_extra_info(info) for info in infos]
    assert [row.sample_id for row in rows[:10]] == [s.sample_id for s in samples]
    assert [info["index"] for info in infos] == list(range(8 + hard_rows))
    assert sum(row.sample_id.startswith("h") for row in rows) == hard_rows
    assert [s.sample_id for s in read_samples(tmp_path / "rl_train.jsonl")] == [s.sample_id for s in samples]


def test_without_a_hard_prompt_nothing_is_repeated():
    assert hard_repeats(0, 1, 0.5) == 1
