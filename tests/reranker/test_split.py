"""What one side learns, no other side asks; groups are drawn from seed and epoch alone."""

import pytest

from reranker.data.mining import mine, passages_of
from reranker.data.records import Passage, Record
from reranker.data.sampling import Sampler, batches, candidate_lists
from reranker.data.split import components_of, shared, split_records, without_shared
from reranker.settings.run import GroupSettings, MiningSettings
from reward.records.files import BadInput


def record(query, *positives, negatives=(), source="f: row 1"):
    return Record(query, tuple(map(passage, positives)), tuple(map(passage, negatives)), source)


def passage(text):
    return Passage(f"id of {text}", text)


def many(n):
    return [record(f"q{i}", f"p{i // 3}", f"own{i}", negatives=[f"n{i}"]) for i in range(n)]


def test_queries_that_share_an_answer_a_query_or_an_id_are_connected():
    rows = [
        record("a", "x"), record("b", "x "), record("b", "y"), record("c", "Y"), record("d", "z"),
        Record("e", (Passage("7", "one text"),), (), "f: row 6"),
        Record("g", (Passage("7", "another"),), (), "f: row 7"),
        Record("h", (Passage("7", "of another file"),), (), "g: row 1"),
    ]  # fmt: skip
    assert sorted(components_of(rows)) == [[0, 1, 2, 3], [4], [5, 6], [7]]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [9, 60, 200])
def test_no_part_shares_a_query_or_an_answer_with_another(n, seed):
    rows = many(n)
    split = split_records(rows, (0.1, 0.1), seed)
    parts = [split.train, split.validation, split.heldout]
    assert sum(map(len, parts)) == n and all(parts)
    for a in parts:
        for b in parts:
            if a is not b:
                found = shared(a, b)
                assert found["queries"] == found["answers"] == 0
    assert len(split.validation) <= 0.1 * n + 3


def test_a_split_is_that_of_its_seed():
    rows = many(60)
    assert split_records(rows, (0.1, 0.1), 3) == split_records(rows, (0.1, 0.1), 3)
    assert split_records(rows, (0.1, 0.1), 3) != split_records(rows, (0.1, 0.1), 4)


@pytest.mark.parametrize("rows", [many(1), many(3), many(6)])
def test_too_few_independent_queries_are_refused_in_a_line(rows):
    with pytest.raises(BadInput, match=rf"^training data of {len(rows)} quer[^\n]*3 are needed[^\n]*$"):
        split_records(rows, (0.1, 0.1), 0)


def test_the_largest_component_is_learned_from():
    rows = [record(f"big{i}", "boilerplate") for i in range(50)] + many(12)
    split = split_records(rows, (0.2, 0.2), 0)
    assert {r.query for r in split.train} >= {f"big{i}" for i in range(50)} and split.largest == 50


def test_what_a_named_set_shares_leaves_the_training_data():
    rest, removed = without_shared(many(9), [record("new", "p1"), record("q7", "else")])
    assert [r.query for r in rest] == ["q0", "q1", "q2"] and removed == 6


def test_the_check_counts_what_is_shared():
    a, b = [record("q", "x", negatives=["y"])], [record("Q", "y")]
    assert shared(a, b) == {"queries": 1, "answers": 0, "answers_as_negatives": 1}


# Groups


def sampler(rows, seed=0, **settings):
    pool = passages_of(rows, [passage(f"pool{i}") for i in range(30)])
    return Sampler(rows, [() for _ in rows], pool, GroupSettings(**settings), seed)


def test_an_epoch_draws_anew_and_the_same_epoch_the_same():
    rows = [record(f"q{i}", f"p{i}", negatives=[f"n{i}.{j}" for j in range(9)]) for i in range(20)]
    first, again = sampler(rows), sampler(rows)
    assert first.groups(0) == again.groups(0) and first.groups(4) == again.groups(4)
    assert first.groups(0) != first.groups(1)
    assert sampler(rows, seed=1).groups(0) != first.groups(0)


def test_a_group_holds_no_answer_among_its_negatives_and_is_as_large_as_asked_for():
    rows = [record(f"q{i}", f"p{i}", f"p{i + 1}", negatives=[f"n{i}"]) for i in range(12)]
    for epoch in range(5):
        for row, group in zip(rows, sampler(rows, positives=1, hard=3, random=2).groups(epoch), strict=True):
            texts = [one.text for one in group.passages]
            assert len(texts) == len(set(texts)) == 6 and group.positives == 1
            assert not {one.text for one in row.positives} & set(texts[1:])


def test_a_query_without_negatives_gets_random_ones():
    rows = [record(f"q{i}", f"p{i}") for i in range(10)]
    assert all(len(group.passages) == 4 for group in sampler(rows, hard=2, random=1).groups(0))


def test_every_group_is_in_one_batch_of_like_length():
    rows = [record(f"q{i}", "x" * (1 + 97 * i % 500), negatives=["y"]) for i in range(200)]
    groups = sampler(rows, hard=1, random=0).groups(0)
    found = batches(groups, 8, 0, 0)
    assert sorted(index for batch in found for index in batch) == list(range(200)) and len(found) == 25
    waste = sum(max(groups[i].length for i in b) * len(b) - sum(groups[i].length for i in b) for b in found)
    plain = [list(range(i, i + 8)) for i in range(0, 200, 8)]
    assert waste < 0.5 * sum(
        max(groups[i].length for i in b) * len(b) - sum(groups[i].length for i in b) for b in plain
    )
    assert batches(groups, 8, 0, 0) == found != batches(groups, 8, 0, 1)


def test_candidate_lists_are_fixed_and_hold_every_passage_of_a_query():
    rows = [record(f"q{i}", f"p{i}", negatives=[f"n{i}.{j}" for j in range(i)]) for i in range(12)]
    pool = passages_of(rows, [])
    lists = candidate_lists(rows, [() for _ in rows], pool, 6, 0)
    assert lists == candidate_lists(rows, [() for _ in rows], pool, 6, 0)
    for i, group in enumerate(lists):
        assert len(group.passages) == max(6, 1 + i) and len({one.text for one in group.passages}) == len(group.passages)


# Mining

TEXTS = [
    "鱼油每日一粒饭后服用",
    "鱼油 每日一粒，饭后服用。",
    "鱼油孕妇慎用",
    "钙片每日两粒",
    "退烧药儿童减半",
    "发货三天内",
]


def test_mining_leaves_out_answers_and_their_near_copies_and_counts_them():
    rows = [record("鱼油每日怎么服用", TEXTS[0])]
    found = mine(rows, [passage(text) for text in TEXTS], MiningSettings(depth=3))
    texts = [one.text for one in found.negatives[0]]
    assert TEXTS[2] in texts and TEXTS[0] not in texts and TEXTS[1] not in texts
    assert found.guarded == 1 and TEXTS[5] not in texts


def test_the_guard_of_an_embedder_leaves_out_what_scores_like_the_answer(tmp_path):
    from tests.support.tiny_models import save_sentence_transformer

    rows = [record("鱼油每日怎么服用", TEXTS[0])]
    passages = [passage(text) for text in TEXTS]
    folder = save_sentence_transformer(tmp_path / "embedder", "".join(TEXTS) + "怎么")
    free = mine(rows, passages, MiningSettings(embedder=folder, guard=10))
    strict = mine(rows, passages, MiningSettings(embedder=folder, guard=0.01))
    assert len(free.negatives[0]) == 4 and not strict.negatives[0] and strict.none == 1
    assert strict.guarded == free.guarded + 4


def test_a_folder_that_is_no_embedder_is_refused_in_a_line(tmp_path):
    with pytest.raises(BadInput, match=r"^data\.mining\.embedder: [^\n]+$"):
        mine([record("q", "a")], [passage("a"), passage("b")], MiningSettings(embedder=tmp_path))
