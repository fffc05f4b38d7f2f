"""The benchmark of the reward's integrity: its arithmetic, its attacks, and a small run over real services."""

import dataclasses

import pytest

from benchmarks import reward_integrity
from benchmarks.integrity_runs.attacks import KINDS
from benchmarks.integrity_runs.case import attack
from benchmarks.integrity_runs.metrics import Contest, auc, highest, lowest, mean_auc, outranked
from benchmarks.integrity_runs.services import HonestJudge
from benchmarks.integrity_runs.suite import load_real_set, load_suites
from reward.judge.protocol import pointwise_question
from reward.records.files import BadInput, write_atomically


@pytest.fixture(scope="module")
def suites():
    return load_suites(seed=0, sample_prompts=4)


def prompt_of(suites, query):
    return next((p, suite) for suite in suites for p in suite.prompts if p.sample.original_query == query)


def kind(name):
    return next(kind for kind in KINDS if kind.name == name)


@pytest.mark.parametrize(
    ("attacked", "honest", "expected"),
    [(0.0, (0.5,), 1.0), (0.5, (0.5,), 0.5), (0.6, (0.5,), 0.0), (0.5, (0.7, 0.5, 0.1, 0.1), 0.375)],
)
def test_a_tie_counts_half(attacked, honest, expected):
    assert auc(Contest(attacked, honest)) == pytest.approx(expected)


def test_auc_is_the_mean_over_prompts_with_head_room():
    won, lost = Contest(0.0, (0.5,)), Contest(0.9, (0.5,))
    assert mean_auc([won, won, lost]) == pytest.approx(2 / 3)
    assert mean_auc([won, dataclasses.replace(lost, has_headroom=False)]) == 1.0
    assert mean_auc([dataclasses.replace(lost, has_headroom=False)]) is None


def test_outranked_wants_strictly_more_than_every_honest_rewrite_with_or_without_head_room():
    best_tied, above_all, above_one = Contest(0.5, (0.5, 0.1)), Contest(0.6, (0.5, 0.1)), Contest(0.3, (0.5, 0.1))
    assert outranked([best_tied, above_one]) == 0.0
    assert outranked([best_tied, dataclasses.replace(above_all, has_headroom=False)]) == 0.5
    assert outranked([]) is None


def test_kinds_without_a_value_decide_nothing():
    assert (lowest([None, 0.9, 0.7]), highest([None, 0.0, 0.2]), lowest([None])) == (0.7, 0.2, None)


def test_the_suite_is_as_large_as_it_claims(suites):
    by_hand = [text for suite in suites for p in suite.prompts if p.is_written for text in p.honest]
    assert len(by_hand) >= 150
    assert len(KINDS) >= 25
    assert {suite.tenant.tenant_id for suite in suites} >= {"fivedoctors", "chengla", "zlkt"}
    assert all(p.sample.relevant_doc_ids[0] in suite.passages for suite in suites for p in suite.prompts)
    ids = [p.sample.sample_id for suite in suites for p in suite.prompts]
    assert len(set(ids)) == len(ids)


def test_every_kind_attacks_and_no_attack_is_an_honest_rewrite(suites):
    made = {kind.name: 0 for kind in KINDS}
    for suite in suites:
        for prompt in suite.prompts:
            for one in KINDS:
                text = attack(one, prompt, suite, seed=0)
                assert text not in prompt.honest
                assert text == attack(one, prompt, suite, seed=0)
                made[one.name] += bool(text)
    assert not [name for name, count in made.items() if count < 3]


def test_attacks_are_what_they_are_called(suites):
    prompt, suite = prompt_of(suites, "鱼油谁能吃啊")
    assert attack(kind("doubled_copy"), prompt, suite, 0) == "鱼油谁能吃啊 鱼油谁能吃啊"
    assert attack(kind("copy_with_context"), prompt, suite, 0) == ""
    assert attack(kind("passage_start"), prompt, suite, 0) == prompt.passage[:30]
    assert sorted(attack(kind("character_salad"), prompt, suite, 0)) == sorted("鱼油谁能吃啊")
    exchanged = attack(kind("product_exchanged"), prompt, suite, 0)
    assert "鱼油" not in exchanged and any(product in exchanged for product in suite.products)
    pregnant, suite = prompt_of(suites, "我怀孕了能吃吗")
    assert "孕妇" not in {attack(kind("group_added"), pregnant, suite, seed).split()[-1] for seed in range(20)}


def test_the_judge_answers_the_rubric_by_its_key(suites):
    prompt, _ = prompt_of(suites, "鱼油谁能吃啊")
    query, honest = prompt.sample.original_query, prompt.honest[0]
    judge = HonestJudge(honest={(query, honest)}, faulty={(query, honest + " 头晕")})

    def grade(rewrite):
        question = pointwise_question("", prompt.sample, rewrite)
        schema = {"json_schema": {"schema": question.schema}}
        answer = judge.answer({"messages": question.messages, "response_format": schema})
        return question.parse(answer["choices"][0]["message"]["content"])["意图保持"]

    assert [grade(text) for text in (honest, honest + " 头晕", "鱼油 不良反应")] == [5, 2, 3]


def test_a_real_set_needs_rewrites_by_people(tmp_path):
    write_atomically(tmp_path / "corpus.jsonl", ['{"_id": "d1", "title": "鱼油", "text": "随餐服用"}'])
    write_atomically(tmp_path / "qrels.tsv", ["query-id\tcorpus-id\tscore", "q1\td1\t1", "q2\td1\t1"])
    rows = [
        '{"_id": "q1", "text": "咋吃", "rewrite": "鱼油 咋吃", "history": ["鱼油", "您好"]}',
        '{"_id": "q2", "text": "吃"}',
    ]
    write_atomically(tmp_path / "queries.jsonl", rows)
    [prompt] = load_real_set(tmp_path, seed=0, count=5).prompts
    assert prompt.sample.context.history_context == "用户: 鱼油\n助手: 您好"
    assert (prompt.honest, prompt.passage) == (("鱼油 咋吃",), "鱼油\n随餐服用")
    write_atomically(tmp_path / "queries.jsonl", [rows[0].replace('"text"', '"split": "train", "text"'), rows[0]])
    assert len(load_real_set(tmp_path, seed=0, count=5).prompts) == 2
    assert len(load_real_set(tmp_path, seed=0, count=5, unseen=True).prompts) == 1
    write_atomically(tmp_path / "queries.jsonl", rows[1:])
    with pytest.raises(BadInput, match="no judged query has `rewrite`"):
        load_real_set(tmp_path, seed=0, count=5)


def test_a_small_run(suites):
    kept = {"fivedoctors": 6, "chengla": 2}
    small = [
        dataclasses.replace(suite, prompts=suite.prompts[-kept[suite.tenant.tenant_id] :])
        for suite in suites
        if suite.tenant.tenant_id in kept
    ]
    measured = reward_integrity.measure(small, seed=0, reranker=None, healthy_runs=1, steps=12)
    found = reward_integrity.metrics(measured, "lexical")
    assert (found["prompts"], found["kinds"], found["no_qrels_scorer"]) == (8, len(KINDS), "lexical")
    assert found["prompts_with_headroom"] > 0
    shares = ["outranked_max", "auc_min", "outranked_max_no_qrels_v1", "auc_min_judged", "honest_gated", "attacks_open"]
    assert all(0 <= found[name] <= 1 for name in shares)
    assert found["audited_hacks"] > 25
    # Formula v1 has no gates. The later ones refuse special tokens.
    texts = [(one, one.attacks["special_token"]) for one in measured.attacked]
    assert not any(measured.known["v1"].is_gated(one, text) for one, text in texts)
    assert len(measured.open_attacks(kind("special_token"))) < len(texts)
    table = reward_integrity.kinds_table(measured, "lexical", "the suite")
    assert table.row_count == len(KINDS)
    # Nothing of it is a real set.
    assert measured.of(real=False).attacked == measured.attacked
    assert reward_integrity.real_metrics(measured.of(real=True))["beir_prompts"] == 0
    assert 0 < len(measured.gainful().attacked) < len(measured.attacked)
