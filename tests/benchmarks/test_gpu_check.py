"""The check of a GPU node: its arithmetic, its refusals, and on a CPU every step of verl that it measures."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from benchmarks import gpu_check
from benchmarks.gpu_check import columns, main
from benchmarks.gpu_runs.random_model import write_random_model
from benchmarks.gpu_runs.setups import SETUPS
from examples.make_tiny_model import make_model, make_tokenizer
from recipes.model_facts import ModelFacts, read_facts

ON_CPU = ["machine=cpu", "model=tiny"]


def test_columns_of_a_phase():
    records = [
        {"seconds": 2.0, "tokens": 1000, "mfu": 0.3, "allocated": 10.0},
        {"seconds": 1.0, "tokens": 1000, "mfu": 0.5, "allocated": 11.0},
        {"seconds": 1.0, "tokens": 1000, "mfu": 0.5, "allocated": 9.0},
    ]
    plan = {"parameters": 8.0, "other model": 40.0, "logits": 2.5, "overhead": 3.6}
    result = {"gpus": 2, "promised_flops": 1e15, "total": 80.0, "model_parameters": 10**10, "plan": plan}
    assert columns(result, "update", records) == ["2000", "50.0%", "6.0%", "11.0", "10.5"]
    assert columns(result, "values", records)[2] == "2.0%"  # no backward pass
    assert columns({"gpus": 1, "model_parameters": 1}, "update", records[:1]) == ["500", "30.0%", "", "", ""]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_without_a_gpu_it_says_so(capsys, tmp_path):
    assert main(["--out", str(tmp_path)]) == 2
    assert "nvidia-smi is not there" in capsys.readouterr().err


def test_an_unknown_set_up_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--only", "QLoRA", *ON_CPU])
    assert SETUPS[0].name in capsys.readouterr().err


def test_a_set_up_that_fails_is_reported_and_the_others_run(tmp_path, capsys):
    assert main(["--out", str(tmp_path), "--only", "SFT LoRA", *ON_CPU, "recipe.sft.bacth=8"]) == 1
    report = json.loads((tmp_path / gpu_check.REPORT).read_text())
    assert ["recipe.sft.bacth" in setup["failed"] for setup in report["setups"]] == [True, True]
    assert "recipe.sft.bacth" in capsys.readouterr().out


def test_a_random_model_has_the_asked_shape_and_a_tokenizer(tmp_path):
    facts = ModelFacts(640, 64, 96, 2, 4, 2, 32, False)
    tiny = make_tokenizer(["钙片怎么吃"], [])
    make_model(tiny, 64, 1, seed=0).save_pretrained(tmp_path / "tiny")
    tiny.save_pretrained(tmp_path / "tiny")
    write_random_model(tmp_path / "model", facts, tmp_path / "tiny", "cpu")
    assert read_facts(tmp_path / "model" / "config.json") == facts
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert sum(weight.numel() for weight in model.parameters()) == facts.parameters
    assert AutoConfig.from_pretrained(tmp_path / "model").dtype == torch.bfloat16
    assert AutoTokenizer.from_pretrained(tmp_path / "model").eos_token == "<|im_end|>"


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "phases"),
    [
        ("SFT all weights 4B", {"update"}),
        ("GRPO LoRA 8B", {"log-probs", "reference", "update"}),
        ("PPO critic all weights 4B", {"values", "update"}),
    ],
)
def test_on_a_cpu_every_phase_runs(tmp_path, name, phases):
    assert main(["--out", str(tmp_path), "--steps", "2", "--only", name, *ON_CPU]) == 0
    (setup,) = json.loads((tmp_path / gpu_check.REPORT).read_text())["setups"]
    assert setup["phases"].keys() == phases
    for records in setup["phases"].values():
        assert len(records) == 2 and all(record["tokens"] > 0 and record["seconds"] > 0 for record in records)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["SFT LoRA 8B", "GRPO all weights 4B"])
def test_on_a_gpu_the_plan_is_right_within_a_twentieth(tmp_path, name):
    main(["--out", str(tmp_path), "--steps", "3", "--only", name])
    setup = json.loads((tmp_path / gpu_check.REPORT).read_text())["setups"][0]
    planned = sum(size for part, size in setup["plan"].items() if part not in ("overhead", "other model"))
    measured = max(record["allocated"] for record in setup["phases"]["update"][1:])
    assert measured == pytest.approx(planned, rel=0.05)
