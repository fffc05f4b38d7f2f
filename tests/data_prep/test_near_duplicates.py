"""Groups of near-duplicate queries: those of a plain all-pairs count, whatever the order and whatever the text."""

from __future__ import annotations

import random
from itertools import combinations, pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from data_prep.questions.facts import facts
from data_prep.questions.near_duplicates import near_duplicate_groups
from data_prep.questions.split import bare

HANZI = [chr(code) for code in range(0x6D00, 0x6D00 + 2001) if chr(code) != "無"]  # no numerals, no negations
# Few characters, so that chance makes queries that are nearly alike; negations, numbers and units among them.
queries_that_collide = st.lists(st.text(alphabet="甲乙丙丁戊ab不2两片 ？😀", max_size=16), max_size=40)
thresholds = st.sampled_from([0.25, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 1.0])


def pairs_of(text: str) -> set[str]:
    return {a + b for a, b in pairwise(text)} or set(text)


def groups_of_all_pairs(queries: list[str], threshold: float) -> np.ndarray:
    """The definition, spelt out."""
    texts = [bare(query) for query in queries]
    sets = [pairs_of(text) for text in texts]
    details = [facts(query) for query in queries]
    alike = np.zeros((len(queries), len(queries)), bool)
    for i, j in combinations(range(len(queries)), 2):
        if details[i] == details[j]:
            union = len(sets[i] | sets[j])
            alike[i, j] = texts[i] == texts[j] or (union > 0 and len(sets[i] & sets[j]) / union >= threshold)
    return np.asarray(connected_components(alike, directed=False)[1])


def partition(groups: np.ndarray) -> list[int]:
    """The same for equal partitions, whatever their groups are called."""
    seen: dict[int, int] = {}
    return [seen.setdefault(int(group), len(seen)) for group in groups]


def grouped(queries: list[str], threshold: float = 0.8) -> list[int]:
    groups = near_duplicate_groups(pa.array(queries, pa.string()), threshold)
    assert groups.dtype == np.int64
    return partition(groups)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("鱼油怎么吃", "鱼油怎么吃？"),
        ("ＤＨＡ 怎么吃", "dha怎么吃"),
        ("癫痫病治疗比较好的医院是哪家？", "请问癫痫病治疗比较好的医院是哪家"),
        ("孕妇能不能吃深海鱼油软胶囊", "孕妇能吃深海鱼油软胶囊么"),
        ("维生素一天吃两片会不会太多了呢", "维生素一天吃2片会不会太多了呢呀"),
        ("how many tablets a day should i take", "How many tablets per day should I take?"),
        ("辅酶Q10饭前吃还是饭后吃效果非常好", "辅酶Q10饭前吃还是饭后吃效果常好"),
    ],
)
def test_the_same_question_in_other_clothes_is_one_group(one: str, other: str) -> None:
    assert grouped([one, other], 0.7) == [0, 0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("一天吃2片", "一天吃3片"),
        ("孕妇能吃深海鱼油软胶囊吗", "孕妇不能吃深海鱼油软胶囊吗"),
        ("孕妇能不能吃深海鱼油软胶囊呢", "孕妇不能吃深海鱼油软胶囊呢"),
        ("维生素每天早上空腹吃1.5片可以吗", "维生素每天早上空腹吃15片可以吗"),
        ("维生素每天早上吃两片晚上可以吗", "维生素每天早上吃三片晚上可以吗"),
        ("八岁孩子可以吃钙片和鱼油软胶囊", "十岁孩子可以吃钙片和鱼油软胶囊"),
        ("is it safe to take fish oil while pregnant", "is it not safe to take fish oil while pregnant"),
        ("should i take it while pregnant with twins", "shouldn't i take it while pregnant with twins"),
        ("鱼油怎么吃", "钙片什么时候吃"),
        ("鱼", "油"),
    ],
)
def test_numbers_and_negations_make_another_question(one: str, other: str) -> None:
    assert grouped([one, other], 0.6) == [0, 1]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("鱼油怎么吃", ""),
        ("一天吃2片，3次", "1 2 3|"),
        ("吃了两百五十毫升和二十一克", "250 21|"),
        ("一万二千元", "12000|"),
        ("第三章和第十二节", "3 12|"),
        ("二〇二六年", "2026|"),
        ("周三还是星期五", "3 5|"),
        ("1,000元和1，000元", "1000 1000|"),
        ("半片", "0.5|"),
        ("想买一个鱼油", ""),
        ("吃一样的东西", ""),
        ("能不能吃，有没有用", ""),
        ("不能吃，没用", "|不 没"),
        ("没用，不能吃", "|不 没"),
        ("区别特别大，非常好", ""),
        ("don't, cannot, do not, no", "|not not not not"),
        ("notice nothing known", ""),
    ],
)
def test_facts(query: str, expected: str) -> None:
    assert facts(query) == expected


@given(queries=queries_that_collide, threshold=thresholds)
@settings(max_examples=150, deadline=None)
def test_groups_are_those_of_all_pairs(queries: list[str], threshold: float) -> None:
    assert grouped(queries, threshold) == partition(groups_of_all_pairs(queries, threshold))


@pytest.mark.parametrize("threshold", [0.6, 0.8])
def test_groups_are_those_of_all_pairs_among_templates(threshold: float) -> None:
    """Long and short, fillings of a few templates and slips of the keyboard: large buckets, and pairs on the border."""
    draw = random.Random(0)
    stems = ["".join(draw.choices(HANZI[:200], k=length)) for length in (5, 9, 20, 45)]
    fillings = ["".join(draw.choices(HANZI[:40], k=draw.randint(1, 4))) for _ in range(60)]
    queries = [draw.choice(fillings) + draw.choice(stems) + draw.choice(fillings) for _ in range(350)]
    queries += ["".join(c for c in draw.choice(queries) if draw.random() < 0.96) for _ in range(150)]
    assert grouped(queries, threshold) == partition(groups_of_all_pairs(queries, threshold))


def test_groups_are_those_of_all_pairs_where_every_bucket_is_large() -> None:
    """One long template around two characters; the fillings that share one of them are near-duplicates, just so."""
    draw = random.Random(5)
    stem = "".join(HANZI[:20])
    queries = [stem[:11] + "".join(draw.choices(HANZI[100:], k=2)) + stem[11 : 20 - n % 3] for n in range(600)]
    expected = partition(groups_of_all_pairs(queries, 0.8))
    assert 100 < len(set(expected)) < 550
    assert grouped(queries, 0.8) == expected


def test_a_query_finds_all_that_add_words_of_their_own() -> None:
    """What it shares with each of them is what they all share: nothing rare leads from one to the other."""
    stem = "".join(HANZI[:20])
    queries = [stem + "".join(HANZI[100 + 4 * n : 104 + 4 * n]) for n in range(400)]
    assert grouped(queries) == list(range(400))
    assert grouped([*queries, stem]) == [0] * 401


@given(queries=queries_that_collide, data=st.data())
@settings(deadline=None)
def test_order_does_not_matter(queries: list[str], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(queries))))
    shuffled = near_duplicate_groups(pa.array([queries[place] for place in order], pa.string()), 0.7)
    back = np.empty(len(queries), np.int64)
    back[list(order)] = shuffled
    assert partition(back) == grouped(queries, 0.7)


def test_ten_thousand_copies_of_each_of_three_templates_are_three_groups() -> None:
    """They share buckets, and every copy differs from every other."""
    draw = random.Random(1)
    stem = "".join(HANZI[:12])
    templates = [stem + "".join(draw.choices(HANZI[100:], k=24)) for _ in range(3)]
    queries = []
    for number in range(30_000):
        template = templates[number % 3]
        queries.append(template + HANZI[number // 3 % 2000] + HANZI[number // 6000])
    assert grouped(queries) == [number % 3 for number in range(30_000)]


def test_ten_thousand_fillings_of_a_template_stay_apart() -> None:
    """Half of the words are the same in all of them; a few are near-copies, and found among the others."""
    draw = random.Random(2)
    stem = "".join(HANZI[:24])
    queries = [stem + "".join(draw.choices(HANZI[100:], k=16)) for _ in range(10_000)]
    copies = [f"请{query}" for query in queries[::1000]]
    assert grouped([*queries, *copies]) == [*range(10_000), *range(0, 10_000, 1000)]


def test_alike_by_way_of_another() -> None:
    chain = ["".join(HANZI[n : n + 20]) for n in range(10)]
    assert grouped(chain, 0.8) == [0] * 10
    assert grouped([chain[0], chain[-1]], 0.8) == [0, 1]


def test_text_that_is_no_query() -> None:
    longest = "".join(random.Random(3).choices(HANZI, k=32_767))
    hostile = [
        "",
        "？",
        "鱼",
        "😀",
        "👨‍👩‍👧",
        "\0",
        "é" * 500,
        longest,
        longest[:-1] + "鱼",
        "哈" * 32_767,
        "哈" * 40,
        "ﷺ" * 9,
        "",
    ]
    groups = grouped(hostile)
    assert groups[0] == groups[-1]
    assert groups[7] == groups[8]
    assert groups[9] == groups[10]
    assert len(set(groups)) == len(hostile) - 3


def test_nothing_and_chunks() -> None:
    assert grouped([]) == []
    assert near_duplicate_groups(pa.chunked_array([], pa.string()), 0.8).tolist() == []
    chunks = pa.chunked_array([["鱼油怎么吃"], [], ["鱼油怎么吃？", "钙片"]], pa.large_string())
    assert partition(near_duplicate_groups(chunks, 0.8)) == [0, 0, 1]


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01, float("nan")])
def test_a_threshold_is_a_similarity(threshold: float) -> None:
    with pytest.raises(ValueError, match="outside"):
        near_duplicate_groups(pa.array(["鱼油"]), threshold)
