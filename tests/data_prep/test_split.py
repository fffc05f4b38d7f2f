"""Splits that hold when data is added, and the check that none of them leaks."""

from __future__ import annotations

import random
from itertools import combinations, pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.questions.facts import facts
from data_prep.questions.leakage import check_leakage, drop_leaking
from data_prep.questions.near_duplicates import near_duplicate_groups
from data_prep.questions.question_sets import question_keys
from data_prep.questions.split import RL_SHARES, SFT_SHARES, Shares, Split, assign_split, assign_splits, bare, leaks

THRESHOLD = 0.7
SPLITS: tuple[Split, ...] = ("train", "val", "test")

products = st.sampled_from(["鱼油", "深海鱼油", "钙片", "液体钙", "辅酶Q10", "维生素", "益生菌粉"])
questions = st.sampled_from(
    ["怎么吃", "一天吃2片可以吗", "一天吃3片可以吗", "孕妇能吃吗", "孕妇不能吃吗", "有什么功效和作用"]
)
trimmings = st.sampled_from(["", "？", "呢", "啊 ", "请问", "你好，"])
templated = st.builds(lambda a, p, q, z: a + p + q + z, trimmings, products, questions, trimmings)
queries_like_each_other = st.lists(st.one_of(templated, st.text(max_size=6)), max_size=60)


def strings(texts: list[str]) -> pa.Array:
    return pa.array(texts, pa.string())


def kept_splits(queries: list[str], shares: Shares, seed: int) -> dict[str, Split | None]:
    """query → its split, None = dropped as a leak."""
    splits = assign_splits(strings(queries), shares, seed)
    dropped = leaks(splits, near_duplicate_groups(strings(queries), THRESHOLD))
    return {
        query: None if drop else split for query, split, drop in zip(queries, splits.to_pylist(), dropped, strict=True)
    }


def alike(one: str, other: str, threshold: float) -> bool:
    """The definition, spelt out."""
    a, b = ({x + y for x, y in pairwise(text)} or set(text) for text in (bare(one), bare(other)))
    same = bare(one) == bare(other) or (bool(a | b) and len(a & b) / len(a | b) >= threshold)
    return same and facts(one) == facts(other)


def test_the_words_decide_and_nothing_else() -> None:
    for query in ("ＤＨＡ 怎么吃？", "dha怎么吃", " dHa，怎么吃!"):
        assert assign_split(query, SFT_SHARES, 0) == assign_split("DHA怎么吃", SFT_SHARES, 0)
    queries = [f"{n}号产品怎么吃" for n in range(200)]
    one, other = (assign_splits(strings(queries), SFT_SHARES, seed).to_pylist() for seed in (0, 1))
    assert one != other


@given(queries=queries_like_each_other, shares=st.sampled_from([SFT_SHARES, RL_SHARES]), seed=st.integers(0, 3))
def test_many_are_assigned_as_each_one_is(queries: list[str], shares: Shares, seed: int) -> None:
    expected = [assign_split(query, shares, seed) for query in queries]
    assert assign_splits(strings(queries), shares, seed).to_pylist() == expected
    assert assign_splits(pa.chunked_array([queries, queries], pa.string()), shares, seed).to_pylist() == expected * 2


def test_a_split_is_the_same_on_every_machine_and_in_every_version() -> None:
    """The hash is part of every data set made so far."""
    splits = assign_splits(strings([f"问题{n}" for n in range(40)]), SFT_SHARES, 7).to_pylist()
    assert [n for n, split in enumerate(splits) if split == "val"] == [0, 6, 22, 29]
    assert [n for n, split in enumerate(splits) if split == "test"] == [20, 26, 30, 31]


def test_shares() -> None:
    queries = [f"第{n}号产品怎么吃" for n in range(20_000)]
    for shares in (SFT_SHARES, RL_SHARES):
        splits = assign_splits(strings(queries), shares, 0).to_pylist()
        for split, share in shares:
            assert splits.count(split) / len(splits) == pytest.approx(share, abs=0.01)


def test_rl_validates_on_nothing_that_sft_learnt_from() -> None:
    queries = strings([f"第{n}号产品怎么吃" for n in range(2_000)])
    sft, rl = (assign_splits(queries, shares, 5).to_pylist() for shares in (SFT_SHARES, RL_SHARES))
    assert {s for s, r in zip(sft, rl, strict=True) if r == "val"} == {"test"}
    assert {r for s, r in zip(sft, rl, strict=True) if s == "train"} == {"train"}


def test_of_a_group_the_most_held_out_side_stays() -> None:
    splits = np.array(["train", "val", "test", "train", "test", "val", "train", "val", "train"])
    groups = np.array([7, 7, 7, 2, 7, 3, 3, 3, 9])
    assert leaks(splits, groups).tolist() == [True, True, False, False, False, False, True, False, False]
    assert leaks(pa.array(splits), groups).tolist() == leaks(splits, groups).tolist()
    assert leaks(np.array([]), np.array([], np.int64)).tolist() == []


@given(
    before=queries_like_each_other,
    added=queries_like_each_other,
    shares=st.sampled_from([SFT_SHARES, RL_SHARES]),
    seed=st.integers(0, 3),
)
@settings(deadline=None)
def test_added_data_moves_no_sample(before: list[str], added: list[str], shares: Shares, seed: int) -> None:
    earlier = kept_splits(before, shares, seed)
    later = kept_splits([*added, *before], shares, seed)
    for query, split in earlier.items():
        assert later[query] in ({split, None} if split else {assign_split(query, shares, seed), None})


@given(queries=queries_like_each_other, seed=st.integers(0, 3), threshold=st.sampled_from([0.5, 0.7, 0.8, 1.0]))
@settings(deadline=None)
def test_no_leak_remains(queries: list[str], seed: int, threshold: float) -> None:
    splits = np.asarray(assign_splits(strings(queries), SFT_SHARES, seed))
    stay = ~leaks(splits, near_duplicate_groups(strings(queries), threshold))
    of = {split: [q for q, s, k in zip(queries, splits, stay, strict=True) if k and s == split] for split in SPLITS}
    for one, other in combinations(SPLITS, 2):
        assert not [(a, b) for a in of[one] for b in of[other] if alike(a, b, threshold)]
    found = check_leakage(strings(of["train"]), {split: strings(of[split]) for split in SPLITS[1:]}, threshold)
    assert found.clean
    assert found.queries == {split: len(of[split]) for split in SPLITS}


@given(
    train=queries_like_each_other,
    val=queries_like_each_other,
    test=queries_like_each_other,
    threshold=st.sampled_from([0.3, 0.5, 0.7, 0.8, 1.0]),
)
@settings(deadline=None)
def test_every_leak_is_found(train: list[str], val: list[str], test: list[str], threshold: float) -> None:
    """By a check that knows nothing of how the splits were made."""
    expected = {"exact": 0, "near": 0}
    for queries, others in ((train, [*val, *test]), (val, test)):
        for query in queries:
            same = [o for o in others if bare(o) == bare(query) and facts(o) == facts(query)]
            if same:
                expected["exact"] += 1
            elif any(alike(query, other, threshold) for other in others):
                expected["near"] += 1
    found = check_leakage(strings(train), {"val": strings(val), "test": strings(test)}, threshold)
    assert {"exact": found.exact, "near": found.near} == expected
    assert found.clean == (not any(expected.values()))
    for leak in found.examples:
        assert alike(leak.query, leak.other_query, threshold)
    held_out = strings([*val, *test])
    expected_drops = [any(alike(copy, other, threshold) for other in [*val, *test]) for copy in train]
    assert drop_leaking(question_keys(strings(train)), question_keys(held_out), threshold).tolist() == expected_drops


def test_a_leak_is_told_in_one_line() -> None:
    train = ["钙片怎么吃", "请问深海鱼油软胶囊怎么吃才好", "孕妇能不能吃益生菌粉固体饮料", "鱼油？"]
    val = ["深海鱼油软胶囊怎么吃才好", "孕妇不能吃益生菌粉固体饮料"]
    found = check_leakage(strings(train), {"val": strings(val), "test": strings(["鱼油"])}, 0.8)
    assert (found.exact, found.near, found.clean) == (1, 1, False)
    assert [(leak.query, leak.other_split, leak.similarity) for leak in found.examples] == [
        ("鱼油？", "test", 1.0),
        ("请问深海鱼油软胶囊怎么吃才好", "val", 0.846),
    ]
    assert str(found) == (
        "each query of each split against those of the others (train 4, val 2, test 1): 1 equal and 1 nearly so "
        "(similarity 0.8 or more), as train '鱼油？' and test '鱼油'"
    )


def test_without_a_threshold_equal_words_alone_count() -> None:
    train, val = strings(["鱼油怎么吃", "哈哈哈", "钙片！"]), strings(["鱼油怎么吃呢", "哈哈哈哈", "钙片"])
    found = check_leakage(train, {"val": val}, None)
    assert (found.exact, found.near) == (1, 0)
    assert "nearly" not in str(found)
    assert drop_leaking(question_keys(train), question_keys(val), None).tolist() == [False, False, True]
    assert drop_leaking(question_keys(train), question_keys(val), 1.0).tolist() == [False, True, True]


def test_the_check_finds_the_leaks_among_thousands() -> None:
    """Templates, long and short; more than one block of comparisons."""
    draw = random.Random(4)
    hanzi = [chr(code) for code in range(0x4E00, 0x4E00 + 300)]
    stems = ["".join(draw.choices(hanzi, k=length)) for length in (4, 8, 16, 40, 130)]
    made = {draw.choice(stems) + "".join(draw.choices(hanzi, k=draw.randint(4, 30))) for _ in range(4_000)}
    queries = sorted(made)
    train, test = queries[:3_200], queries[3_200:]
    copies = [query[:-1] for query in test if len(query) > 25][:50]
    before = check_leakage(strings(train), {"test": strings(test)}, 0.9).near
    found = check_leakage(strings([*train, *copies]), {"test": strings(test)}, 0.9)
    assert found.near == before + len(copies) == before + 50


def test_nothing_leaks_into_nothing() -> None:
    found = check_leakage(strings([]), {"val": strings([]), "test": strings([])}, 0.8)
    assert found.clean
    assert found.queries == {"train": 0, "val": 0, "test": 0}
    assert drop_leaking(question_keys(strings([])), question_keys(strings(["鱼油"])), 0.8).tolist() == []
    assert drop_leaking(question_keys(strings(["鱼油"])), question_keys(strings([])), 0.8).tolist() == [False]


def test_text_that_is_no_query() -> None:
    longest = "鱼油怎么吃" * 6_553 + "好"
    hostile = ["", "？", "鱼", "😀", "\0", "ﷺ" * 2_000, longest, "e\u0301" * 9]
    splits = assign_splits(strings(hostile), SFT_SHARES, 0).to_pylist()
    assert splits == [assign_split(query, SFT_SHARES, 0) for query in hostile]
    found = check_leakage(strings(hostile), {"test": strings([*hostile, longest[:-1]])}, 0.8)
    assert (found.exact, found.near) == (len(hostile), 0)
