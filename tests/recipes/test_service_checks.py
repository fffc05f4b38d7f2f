"""What preflight asks the judge and the baseline, over real sockets: sane answers, their time, nothing paid twice."""

import pytest
from fastapi import FastAPI, Response

from recipes.checks.finding import Level
from recipes.checks.services import ask_baseline, ask_judge, judge_calls_a_step, last_calls
from recipes.checks.settings import check_settings
from recipes.checks.speed import judge_cost_findings, step_findings
from recipes.compose import compose_recipe
from reward.records.sample import Candidates, Metadata, Sample
from tests.support.asgi_server import AsgiServer
from tests.support.loopback_judge import LoopbackJudge
from tests.support.ports import refusing_url

QUERY = "鱼油咋吃"


def samples(*baselines):
    metadata = Metadata(tenant_id="fivedoctors")
    return [
        Sample(sample_id=str(n), original_query=f"{QUERY}{n}", metadata=metadata, candidates=Candidates(baseline=text))
        for n, text in enumerate(baselines)
    ]


def recipe(*overrides):
    config = compose_recipe("grpo", ["tenant=fivedoctors", *overrides])
    return config, check_settings("grpo", config)


@pytest.fixture
def judge():
    server = LoopbackJudge()
    yield server
    server.close()


def judged_by(judge, tmp_path, *overrides):
    price = "rewriter.judge.price={currency: CNY, input: 4, cached_input: 4, output: 12}"
    common = ("judge=self_hosted", f"rewriter.judge.base_url={judge.url}", "rewriter.judge.backoff=[0.01,0.02]")
    return recipe(*common, price, f"rewriter.ledger.path={tmp_path / 'run' / 'ledger.sqlite'}", *overrides)


def test_the_judge_grades_the_first_baselines_and_is_paid_once(judge, tmp_path):
    config, settings = judged_by(judge, tmp_path)
    asked = samples("鱼油 用法用量", "", "鱼油 价格优惠", "鱼油 用法用量 每日剂量")
    (finding,), each = ask_judge(settings, asked)
    assert finding.level is Level.OK and "grades the first baselines 3.00, 1.00" in finding.text
    assert len(judge.requests) == 6  # three votes each
    assert each.seconds > 0 and each.cny == pytest.approx((1000 * 4 + 100 * 12) / 1e6)
    # A second preflight, and the run itself, find the answers in the ledger.
    assert ask_judge(settings, asked) == ([finding], each) and len(judge.requests) == 6
    (cost,) = judge_cost_findings(config, settings, asked[0], 100, each.cny)
    assert f"about {(800 + 300) * each.cny:.1f} CNY the first epoch" in cost.text and "at most" in cost.text


def test_a_pairwise_judge_compares_the_baseline_with_the_query(judge, tmp_path):
    _, settings = judged_by(judge, tmp_path, "rewriter.judge.mode=pairwise")
    (finding,), _ = ask_judge(settings, samples("鱼油 用法用量", "鱼油 用法用量"))
    assert finding.level is Level.OK and "prefers the baseline to the plain query at 1.00" in finding.text
    assert len(judge.requests) == 2


@pytest.mark.parametrize(
    ("faults", "said"),
    [(["refusal"] * 99, "assist"), (["html"] * 99, "JSON"), (["500"] * 99, "500"), (["out of range"] * 99, "")],
)
def test_a_judge_without_a_sane_verdict_is_refused(judge, tmp_path, faults, said):
    judge.faults = faults
    _, settings = judged_by(judge, tmp_path)
    (finding,), each = ask_judge(settings, samples("鱼油 用法用量"))
    assert finding.level is Level.BAD and said in finding.text and each is None


def test_a_spent_budget_is_a_warning_and_costs_no_call(judge, tmp_path):
    _, settings = judged_by(judge, tmp_path, "rewriter.ledger.run.calls=0")
    (finding,), _ = ask_judge(settings, samples("鱼油 用法用量"))
    assert finding.level is Level.WARNING and judge.requests == []


def test_without_a_recorded_baseline_the_judge_is_not_asked(judge, tmp_path):
    _, settings = judged_by(judge, tmp_path)
    (finding,), each = ask_judge(settings, samples("", ""))
    assert finding.level is Level.WARNING and each is None and judge.requests == []


def test_an_empty_ledger_has_no_last_call(judge, tmp_path):
    _, settings = judged_by(judge, tmp_path, "rewriter.ledger.run.calls=0")
    ask_judge(settings, samples("鱼油 用法用量"))
    assert last_calls(settings.ledger.path) is None


@pytest.mark.parametrize(
    ("mode", "calls"), [("pointwise", 64 * (8 + 3)), ("batched", 64 * (1 + 3)), ("pairwise", 64 * 8 * 2)]
)
def test_calls_of_a_step(mode, calls):
    config, settings = recipe("judge=self_hosted", f"rewriter.judge.mode={mode}")
    assert judge_calls_a_step(config, settings.judge) == calls


def test_a_slow_judge_sets_the_step():
    config, settings = recipe("judge=deepseek_v3")
    latency, step = step_findings(config, settings, [0.02] * 8, (20.0, 30.0), (704, 3.0))
    # 704 calls, 5 at a time, 3 s each.
    assert "423.0 s for 704 calls at 5 together" in latency.text
    assert step.level is Level.WARNING and "reward 423 beside it" in step.text and "reward-bound" in step.text
    _, quick = step_findings(config, settings, [0.02] * 8, (20.0, 30.0), (704, 0.02))
    assert quick.level is Level.OK and "rollout-bound" in quick.text
    _, unknown = step_findings(config, settings, [0.02] * 8, (20.0, 30.0))
    assert "without the judge's time" in unknown.text
    _, no_card = step_findings(config, settings, [0.02] * 8, None, (704, 3.0))
    assert "reward 423.0 s, set by the judge" in no_card.text


@pytest.mark.parametrize(
    ("answer", "needed", "level", "said"),
    [
        ({"rewritten_query": "鱼油 用法"}, True, Level.OK, "鱼油 用法"),
        ({"rewritten_query": f"{QUERY} 0"}, True, Level.WARNING, "the query itself"),
        ({"rewritten_query": "鱼" * 501}, True, Level.WARNING, "501 characters"),
        ({"rewritten_query": " "}, True, Level.BAD, "rewritten_query"),
        ({"error": "no model"}, True, Level.BAD, "no model"),
        ({"error": "no model"}, False, Level.WARNING, "no model"),
        (None, True, Level.BAD, "500"),
    ],
)
def test_the_baseline_is_asked_for_a_sane_rewrite(answer, needed, level, said):
    app = FastAPI()

    @app.post("/api/rewrite_query")
    def rewrite():
        return Response("no", 500) if answer is None else answer

    with AsgiServer(app) as server:
        backoff = "rewriter.tenant.baseline.backoff=[0.01,0.02]"
        _, settings = recipe(f"rewriter.tenant.baseline.url={server.url}", backoff)
        # It is asked although a rewrite is recorded.
        (finding,) = ask_baseline(settings, samples("鱼油 记录")[0], needed=needed)
    assert finding.level is level and said in finding.text


def test_a_baseline_that_nobody_serves_is_refused_where_prompts_wait_for_it():
    assert ask_baseline(recipe()[1], samples("")[0], needed=True) == []
    with refusing_url() as url:
        _, settings = recipe(f"rewriter.tenant.baseline.url={url}", "rewriter.tenant.baseline.backoff=[0.01,0.02]")
        (finding,) = ask_baseline(settings, samples("")[0], needed=True)
    assert finding.level is Level.BAD
