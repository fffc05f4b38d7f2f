"""export.merge: bad input in one line, and real merges (plain and LoRA) of checkpoints as the trainer lays them out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3ForCausalLM

from export.merge import BadCheckpoint, check_model, find_shards, main
from tests.support.tiny_models import qwen3_config


def tiny_model() -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    config = qwen3_config(64, max_position_embeddings=128, tie_word_embeddings=True)
    config.architectures = ["Qwen3ForCausalLM"]
    return Qwen3ForCausalLM(config)


def write_tokenizer(folder: Path) -> None:
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", *"今天天气好公园散步"]) if token}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")
    fast.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    fast.save_pretrained(folder)


def write_checkpoint(folder: Path, model: torch.nn.Module, *, world_size: int = 1) -> Path:
    """A checkpoint as verl's FSDP manager lays it out."""
    folder.mkdir(parents=True)
    (folder / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": world_size}))
    model.config.save_pretrained(folder / "huggingface")
    write_tokenizer(folder / "huggingface")
    torch.save(dict(model.state_dict()), folder / f"model_world_size_{world_size}_rank_0.pt")
    return folder


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """An SFT run with two steps, the newest named by the trainer's pointer."""
    run = tmp_path / "sft"
    write_checkpoint(run / "global_step_2", tiny_model())
    write_checkpoint(run / "global_step_10", tiny_model())
    (run / "latest_checkpointed_iteration.txt").write_text("10")
    return run


def test_finds_shards_of_run_step_and_actor(run_folder: Path, tmp_path: Path) -> None:
    rl = write_checkpoint(tmp_path / "rl" / "global_step_3" / "actor", tiny_model())
    assert find_shards(run_folder) == run_folder / "global_step_10"
    assert find_shards(run_folder / "global_step_2") == run_folder / "global_step_2"
    assert find_shards(rl.parent) == rl
    assert find_shards(rl) == rl


def test_a_run_folder_stands_for_its_best_step_unless_the_last_is_asked_for(run_folder: Path) -> None:
    best = write_checkpoint(run_folder / "checkpoints" / "step_2" / "actor", tiny_model())
    (run_folder / "checkpoints" / "best").symlink_to("step_2")
    assert find_shards(run_folder) == find_shards(run_folder / "checkpoints" / "best").resolve() == best
    assert find_shards(run_folder, last=True) == run_folder / "global_step_10"


def break_nothing_there(run: Path) -> None:
    (run / "latest_checkpointed_iteration.txt").unlink()


def break_pointer(run: Path) -> None:
    (run / "latest_checkpointed_iteration.txt").write_text("11")


def break_shard(run: Path) -> None:
    (run / "global_step_10" / "model_world_size_1_rank_0.pt").unlink()


def break_world_size(run: Path) -> None:
    (run / "global_step_10" / "fsdp_config.json").write_text('{"world_size": 2}')


def break_json(run: Path) -> None:
    (run / "global_step_10" / "fsdp_config.json").write_text("{")


def break_tokenizer(run: Path) -> None:
    (run / "global_step_10" / "huggingface" / "tokenizer_config.json").unlink()


def make_critic(run: Path) -> None:
    config = run / "global_step_10" / "huggingface" / "config.json"
    config.write_text(config.read_text().replace("Qwen3ForCausalLM", "Qwen3ForTokenClassification"))


def break_encoding(run: Path) -> None:
    (run / "global_step_10" / "fsdp_config.json").write_bytes(b"\xff\xfe\x00")


def break_pointers_encoding(run: Path) -> None:
    (run / "latest_checkpointed_iteration.txt").write_bytes(b"\xff")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_encoding, "fsdp_config.json: not JSON"),
        (break_pointers_encoding, "but there is no global_step_"),
        (break_nothing_there, "no checkpoint here"),
        (break_pointer, "names step '11', but there is no global_step_11"),
        (break_shard, "lacks model_world_size_1_rank_0.pt"),
        (break_world_size, "lacks model_world_size_2_rank_0.pt"),
        (break_json, "fsdp_config.json: not JSON"),
        (break_tokenizer, "lacks huggingface/tokenizer_config.json"),
        (make_critic, "the critic is not for export"),
    ],
)
def test_bad_checkpoint_is_one_line(run_folder: Path, tmp_path: Path, capsys, damage, message: str) -> None:
    damage(run_folder)
    assert main(["--checkpoint", str(run_folder), "--out", str(tmp_path / "final")]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and message in told and told.count("\n") == 1
    assert not (tmp_path / "final").exists()


def test_missing_folder(tmp_path: Path, capsys) -> None:
    assert main(["--checkpoint", str(tmp_path / "none"), "--out", str(tmp_path / "final")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_foreign_output_folder_is_left_alone(run_folder: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("mine")
    assert main(["--checkpoint", str(run_folder), "--out", str(tmp_path / "notes")]) == 2
    assert "is no model folder" in capsys.readouterr().err
    assert (tmp_path / "notes" / "thesis.txt").read_text() == "mine"


def test_diverged_model_is_refused(tmp_path: Path) -> None:
    model = tiny_model()
    model.model.norm.weight.data[0] = float("nan")
    model.save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    with pytest.raises(BadCheckpoint, match=r"model\.norm\.weight is not finite"):
        check_model(tmp_path)


@pytest.mark.full
def test_merges_skips_and_replaces(run_folder: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "final"
    assert main(["--checkpoint", str(run_folder), "--out", str(out)]) == 0
    provenance = json.loads((out / "provenance.json").read_text())
    assert provenance["checkpoint"].endswith("global_step_10")
    merged = AutoModelForCausalLM.from_pretrained(out, dtype=torch.bfloat16).state_dict()
    for name, weight in tiny_model().state_dict().items():
        assert torch.equal(merged[name], weight.bfloat16()), name
    capsys.readouterr()
    assert main(["--checkpoint", str(run_folder), "--out", str(out)]) == 0
    assert "up to date" in capsys.readouterr().out
    # A checkpoint that breaks later leaves the earlier model in place.
    (run_folder / "global_step_10" / "model_world_size_1_rank_0.pt").write_bytes(b"truncated")
    assert main(["--checkpoint", str(run_folder), "--out", str(out)]) == 2
    assert "verl's merger failed" in capsys.readouterr().err
    assert check_model(out) == provenance["parameters"]


@pytest.mark.full
def test_lora_adapter_is_folded_in(tmp_path: Path) -> None:
    adapted = get_peft_model(tiny_model(), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    checkpoint = write_checkpoint(tmp_path / "global_step_1", adapted)
    tiny_model().config.save_pretrained(checkpoint / "huggingface")
    (checkpoint / "lora_train_meta.json").write_text('{"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM"}')
    out = tmp_path / "final"
    assert main(["--checkpoint", str(checkpoint), "--out", str(out)]) == 0
    expected = adapted.merge_and_unload().state_dict()
    merged = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).state_dict()
    name = "model.layers.1.mlp.down_proj.weight"
    assert torch.allclose(merged[name], expected[name], atol=0.03)
    assert not torch.allclose(merged[name], tiny_model().state_dict()[name], atol=0.3)
    assert not (out / "lora_adapter").exists()
