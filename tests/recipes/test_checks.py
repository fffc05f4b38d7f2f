"""What preflight finds out about machine, data and services, each check on its own."""

import os
import stat
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from recipes.checks.cards import Card, card_findings, card_gib, parse_cards, read_cards
from recipes.checks.finding import Level, bad, ok, refusals, table, warning
from recipes.checks.machine import (
    LOCK,
    checkpoint_gib,
    disk_findings,
    host_findings,
    host_memory,
    locked_memory_findings,
    model_findings,
    shared_memory_findings,
    version_findings,
)
from recipes.checks.prompts import histogram, prompt_findings, read_prompts
from recipes.checks.report import advise, memory_findings, sampling_findings
from recipes.checks.settings import check_settings
from recipes.checks.speed import (
    card_speed,
    gpu_seconds,
    judge_calls,
    judge_cost_findings,
    judge_reach_findings,
    step_findings,
    waiting_seconds,
)
from recipes.compose import compose_recipe
from recipes.memory_plan import plan_memory
from recipes.model_facts import KNOWN_MODELS
from reward.records.sample import Candidates, Context, Metadata, Sample

TENANT = "tenant=fivedoctors"
QWEN_8B = KNOWN_MODELS["Qwen/Qwen3-8B"]
H100 = "NVIDIA H100 80GB HBM3, 81559, 4, 580.82.07\n"


def levels(findings):
    return [finding.level for finding in findings]


def texts(findings):
    return " | ".join(f"{finding.subject} {finding.text}" for finding in findings)


def test_cards_are_read_from_the_csv():
    cards = parse_cards(H100 * 4)
    assert cards == [Card("NVIDIA H100 80GB HBM3", 81559, 4, "580.82.07")] * 4
    assert 79.0 < card_gib(cards) < 79.65


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "lists no GPU"),
        ("\n", "lists no GPU"),
        ("No devices were found\n", "cannot read 'No devices were found'"),
        ("NVIDIA GB10, [N/A], [N/A], 580.1\n", "cannot read"),
        ("a, b\n", "cannot read"),
    ],
)
def test_cards_that_cannot_be_read_are_one_red_line(text, said):
    reason = parse_cards(text)
    assert isinstance(reason, str) and said in reason
    (finding,) = card_findings(compose_recipe("grpo", [TENANT]), reason)
    assert finding.level is Level.BAD and card_gib(reason) is None


def test_cards_against_what_the_recipe_takes():
    config = compose_recipe("grpo", [TENANT])
    assert levels(card_findings(config, parse_cards(H100 * 4))) == [Level.OK]
    few = card_findings(config, parse_cards(H100 * 2))
    assert levels(few) == [Level.BAD] and "recipe.machine.gpus_per_node=2" in texts(few)
    old = card_findings(config, parse_cards(H100.replace("580.82.07", "570.124.06") * 4))
    assert "driver" in {finding.subject for finding in old if finding.level is Level.BAD}
    busy = card_findings(config, parse_cards(H100 * 3 + H100.replace(", 4,", ", 70000,")))
    assert Level.BAD in levels(busy) and "another program" in texts(busy)
    mixed = card_findings(config, parse_cards(H100 * 3 + "NVIDIA A100-SXM4-40GB, 40960, 1, 580.82.07\n"))
    assert Level.WARNING in levels(mixed) and "39.8 GiB" in texts(mixed)


def program(folder, text):
    """A program of the name nvidia-smi, which the shell finds first."""
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_nvidia_smi_is_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "--gpus all" in read_cards()  # absent
    program(tmp_path, f"echo '{H100.strip()}'")
    assert read_cards()[0].driver == "580.82.07"
    program(tmp_path, "echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'; exit 9")
    assert "ends with 9" in read_cards() and "NVIDIA driver" in read_cards()


def test_host_memory_shared_memory_and_locked_memory(tmp_path):
    assert 0 < host_memory() < 10_000
    assert levels(host_findings(192, 256)) == [Level.OK]
    assert levels(host_findings(192, 160)) == [Level.WARNING]
    assert levels(host_findings(192, 64)) == [Level.BAD]
    (absent,) = shared_memory_findings(tmp_path / "absent")
    assert absent.level is Level.BAD
    size = os.statvfs("/dev/shm")
    (here,) = shared_memory_findings()
    assert (here.level is Level.BAD) == (size.f_blocks * size.f_frsize < 8 * 2**30)
    assert levels(locked_memory_findings(-1)) == [Level.OK]
    assert levels(locked_memory_findings(64 << 10)) == [Level.WARNING]


def test_the_disk_holds_the_checkpoints_that_are_kept(tmp_path):
    grpo, ppo, lora = (
        checkpoint_gib(compose_recipe(*arguments), QWEN_8B)
        for arguments in (("grpo", [TENANT]), ("ppo", [TENANT]), ("grpo", [TENANT, "train=lora"]))
    )
    # An 8B with Adam is 98 GB; the best one is kept without.
    assert grpo == pytest.approx(2 * 91.5 + 30.5 + 15.3, abs=0.5)
    assert ppo == pytest.approx(grpo + 2 * 84.6, abs=0.5)
    assert lora < 70
    assert levels(disk_findings(tmp_path, 1e9)) == [Level.BAD] and levels(disk_findings(tmp_path, 0)) == [Level.OK]


class Hub(BaseHTTPRequestHandler):
    """Knows one model; the judge's list of models needs a key."""

    def do_HEAD(self):
        self.send_response(200 if self.path.startswith("/Qwen/Qwen3-8B/") else 404)
        self.end_headers()

    def do_GET(self):
        self.send_response({"Bearer right": 200, "Bearer wrong": 401}.get(self.headers.get("Authorization"), 404))
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_model_is_local_cached_or_on_a_hub_that_answers(tmp_path, hub):
    online = {"HOME": str(tmp_path), "HF_ENDPOINT": hub}
    assert levels(model_findings(str(tmp_path), {})) == [Level.OK]
    assert levels(model_findings("Qwen/Qwen3-8B", online)) == [Level.OK]
    assert "404" in texts(model_findings("Qwen/Qwen3-9B", online))
    assert levels(model_findings("Qwen/Qwen3-8B", {**online, "HF_HUB_OFFLINE": "1"})) == [Level.BAD]
    assert levels(model_findings("Qwen/Qwen3-8B", {**online, "HF_ENDPOINT": "http://127.0.0.1:9"})) == [Level.BAD]
    snapshot = tmp_path / ".cache/huggingface/hub/models--Qwen--Qwen3-8B/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").touch()
    assert levels(model_findings("Qwen/Qwen3-8B", {**online, "HF_HUB_OFFLINE": "1"})) == [Level.OK]


def test_versions_against_the_lock(tmp_path):
    assert "verl==" in LOCK.read_text(encoding="utf-8")
    lock = tmp_path / "gpu.lock"
    lock.write_text("torch==2.11.0 \\\n    --hash=sha256:0\nverl==0.9.1 \\\nvllm==0.24.0 \\\n")
    assert levels(version_findings({"torch": "2.11.0+cu130", "verl": "0.9.1"}, lock)) == [Level.OK]
    assert levels(version_findings({"torch": "2.12.0", "verl": "0.9.1"}, lock)) == [Level.WARNING]
    assert levels(version_findings({"verl": "0.9.0", "vllm": "absent"}, lock)) == [Level.BAD] * 2
    assert levels(version_findings({"verl": "0.9.1"}, tmp_path / "absent.lock")) == [Level.WARNING]


def rl_file(folder, contents, baselines):
    rows = []
    for number, (content, baseline) in enumerate(zip(contents, baselines, strict=True)):
        sample = Sample(
            sample_id=str(number), original_query="鱼油", metadata=Metadata(tenant_id="fivedoctors"),
            candidates=Candidates(baseline=baseline),
        )  # fmt: skip
        rows.append({"prompt": [{"role": "user", "content": content}], "extra_info": sample.to_extra_info(number)})
    pq.write_table(pa.Table.from_pylist(rows), folder / "rl.parquet")
    return folder / "rl.parquet"


def word_model(folder):
    tokenizer = Tokenizer(models.WordLevel({"字": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return str(folder)


def test_prompt_lengths_against_the_limit(tmp_path):
    config = compose_recipe("grpo", [TENANT, "recipe.rl.max_prompt_tokens=100"])
    assert histogram([10, 25, 26, 100, 101], 100) == "≤25: 2, ≤50: 1, ≤75: 0, ≤100: 1, more: 1"
    model = word_model(tmp_path)
    short, long = "字 " * 40, "字 " * 200
    prompts = read_prompts(rl_file(tmp_path, [short, short, long], ["鱼油 用法"] * 3), "prompt", model)
    assert prompts.counted and [length - prompts.frame for length in prompts.lengths] == [40, 40, 200]
    findings = prompt_findings(config, prompts)
    assert levels(findings) == [Level.WARNING, Level.OK] and "1 over recipe.rl.max_prompt_tokens=100" in texts(findings)
    most = read_prompts(rl_file(tmp_path, [short, long, long], ["鱼油 用法"] * 3), "prompt", model)
    assert levels(prompt_findings(config, most)) == [Level.BAD, Level.OK]
    estimated = read_prompts(rl_file(tmp_path, [short, long, long], ["鱼油 用法"] * 3), "prompt", "Qwen/Qwen3-8B")
    assert not estimated.counted and levels(prompt_findings(config, estimated))[0] is Level.WARNING


def test_a_long_sft_sample_is_refused(tmp_path):
    rows = [{"messages": [{"role": "user", "content": "字 " * n}]} for n in (30, 3000)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "sft.parquet")
    prompts = read_prompts(tmp_path / "sft.parquet", "messages", word_model(tmp_path))
    assert levels(prompt_findings(compose_recipe("sft", [TENANT]), prompts)) == [Level.BAD]


def test_prompts_without_a_baseline_are_counted(tmp_path):
    config = compose_recipe("grpo", [TENANT])
    for baselines, live, level in [
        (["鱼油", ""], False, Level.WARNING),
        (["", ""], False, Level.BAD),
        (["", ""], True, Level.WARNING),
    ]:
        prompts = read_prompts(rl_file(tmp_path, ["字", "字"], baselines), "prompt", "Qwen/Qwen3-8B")
        finding = prompt_findings(config, prompts, live_baseline=live)[-1]
        assert finding.level is level and f"{baselines.count('')} of 2" in finding.text


def test_a_recipe_that_does_not_fit_says_what_to_override():
    for overrides, advice in [
        (["machine=gpu4_48gb"], ["train=lora"]),
        (["machine=gpu4_24gb", "train=lora"], ["recipe.machine.tensor_parallel=2"]),
    ]:
        config = compose_recipe("grpo", [TENANT, *overrides])
        plan = plan_memory(config, QWEN_8B)
        found = advise("grpo", [TENANT, *overrides], QWEN_8B, None)
        assert found == advice
        last = memory_findings(plan, found)[-1]
        assert last.level is Level.BAD and advice[0] in last.text
        helped = plan_memory(compose_recipe("grpo", [TENANT, *overrides, *found]), QWEN_8B)
        assert helped.verdict == "fits" and levels(memory_findings(helped, []))[-1] is Level.OK


def test_a_cut_distribution_is_warned_of():
    assert levels(sampling_findings(compose_recipe("ppo", [TENANT, "recipe.rl.top_p=0.9"]))) == [Level.WARNING]
    assert sampling_findings(compose_recipe("ppo", [TENANT])) == []


def test_retrieval_takes_waves_or_its_limit_per_minute():
    assert waiting_seconds(512, 0.1, 10, None) == pytest.approx(5.2)
    assert waiting_seconds(512, 0.1, 10, 600) == pytest.approx(51.2)


def test_a_step_is_predicted_from_latency_and_card():
    config = compose_recipe("grpo", [TENANT])
    settings = check_settings("grpo", config)
    assert card_speed("NVIDIA H100 80GB HBM3") == (989e12, 3350e9) and card_speed("Radeon") is None
    rollout, update = gpu_seconds(config, QWEN_8B, 400, card_speed("NVIDIA H100 80GB HBM3"))
    slower = gpu_seconds(config, QWEN_8B, 400, card_speed("NVIDIA L40S"))
    assert 1 < rollout < slower[0] and 1 < update < slower[1]
    quick = step_findings(config, settings, [0.02] * 8, (rollout, update))
    assert levels(quick) == [Level.OK] * 2 and "rollout-bound" in texts(quick)
    slow = step_findings(config, settings, [5.0] * 8, (rollout, update))
    assert levels(slow) == [Level.OK, Level.WARNING] and "reward-bound" in texts(slow)
    assert levels(step_findings(config, settings, [], None)) == [Level.BAD]


def test_the_judge_is_priced_at_most_and_against_the_budget():
    sample = Sample(
        sample_id="1", original_query="鱼油咋吃", metadata=Metadata(tenant_id="fivedoctors"),
        context=Context(history_context="用户: 你好"), candidates=Candidates(baseline="鱼油 用法用量"),
    )  # fmt: skip
    config = compose_recipe("grpo", [TENANT, "judge=deepseek_v3", "recipe.rl.epochs=2"])
    settings = check_settings("grpo", config)
    assert judge_calls(config, settings.judge, 100) == (800, 300)
    assert judge_calls(config, settings.judge.model_copy(update={"mode": "pairwise"}), 100) == (1600, 0)
    (finding,) = judge_cost_findings(config, settings, sample, 100)
    assert finding.level is Level.OK and "800 + 300 calls" in finding.text
    tight = compose_recipe("grpo", [TENANT, "judge=deepseek_v3", "rewriter.ledger.run.cny=1"])
    (over,) = judge_cost_findings(tight, check_settings("grpo", tight), sample, 100)
    assert over.level is Level.WARNING and "exit code 76" in over.text


def test_the_judge_is_asked_for_its_models(hub):
    config = compose_recipe("grpo", [TENANT, "judge=self_hosted", f"rewriter.judge.base_url={hub}/v1"])
    judge = check_settings("grpo", config).judge
    assert levels(judge_reach_findings(judge, {})) == [Level.WARNING]  # 404: there, but it keeps no such list
    judge = judge.model_copy(update={"api_key_env": "KEY"})
    assert levels(judge_reach_findings(judge, {"KEY": "right"})) == [Level.OK]
    refused = judge_reach_findings(judge, {"KEY": "wrong"})
    assert levels(refused) == [Level.BAD] and "wrong" not in texts(refused)
    gone = judge.model_copy(update={"base_url": "http://127.0.0.1:9/v1"})
    assert levels(judge_reach_findings(gone, {"KEY": "right"})) == [Level.BAD]


def test_the_table_names_what_is_bad():
    findings = [ok("GPUs", "4"), warning("memlock", "64 KiB"), bad("shm", "64 MB"), bad("disk", "full")]
    lines = table(findings).splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "warn", "BAD", "BAD"]
    assert "\x1b[31m" in table(findings, coloured=True) and "\x1b" not in table(findings)
    assert refusals(findings) == ["shm: 64 MB", "disk: full"] and refusals(findings[:2]) == []
