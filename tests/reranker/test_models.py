"""Opening any base: with and without a head, causal, of another tokenizer; scores that padding does not change."""

import json
import shutil

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from reranker.modelling.adapters import add_adapter, check_method, merged
from reranker.modelling.calibration import Platt
from reranker.modelling.export import open_folder, write_folder
from reranker.modelling.opening import open_model, unknown_tokens_warning
from reranker.modelling.scoring import logits
from reranker.settings.run import TrainingSettings
from reward.records.files import BadInput
from tests.support.reranker_sets import ALPHABET, served_scores
from tests.support.tiny_models import save_bert, save_cross_encoder, save_qwen3, save_sentence_transformer

PAIRS = [("天地", "玄黄宇宙洪荒是"), ("日月盈昃吗", "否"), ("寒", "来暑往秋收冬藏闰余成岁律吕调阳云腾致雨")]
MAKE = {
    "bert": lambda folder: save_bert(folder, ALPHABET, labels=1),
    "bare": lambda folder: save_bert(folder, ALPHABET),
    "embedder": lambda folder: save_sentence_transformer(folder, ALPHABET),
    "cross-encoder": lambda folder: save_cross_encoder(folder, ALPHABET),
    "qwen3": lambda folder: save_qwen3(folder, ALPHABET, generative=False),
    "qwen3 without padding": lambda folder: save_qwen3(folder, ALPHABET, generative=False, padded=False),
    "qwen3 that answers": lambda folder: save_qwen3(folder, ALPHABET, generative=True),
}


@pytest.fixture(params=MAKE)
def base(request, tmp_path):
    return request.param, MAKE[request.param](tmp_path / "base")


def test_a_score_does_not_depend_on_padding(base):
    model = open_model(base[1], 64).cross_encoder
    together, alone = logits(model, PAIRS), [logits(model, [pair])[0] for pair in PAIRS]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert len(set(together.round(3))) == 3


def test_a_base_without_a_head_is_warned_of_and_others_are_not(base):
    opened = open_model(base[1], 64)
    assert opened.new_head == (base[0] in ("bare", "embedder")) == any("no head" in line for line in opened.warnings)
    assert opened.causal == base[0].startswith("qwen3")


def test_a_language_model_that_answers_becomes_a_classifier_of_the_same_score(tmp_path):
    folder = save_qwen3(tmp_path / "base", ALPHABET, generative=True)
    answers = CrossEncoder(str(folder), local_files_only=True)
    np.testing.assert_allclose(logits(open_model(folder, 64).cross_encoder, PAIRS), logits(answers, PAIRS), atol=1e-4)


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_training_folder_and_service_give_one_number(tmp_path, kind, method):
    folder = MAKE[kind](tmp_path / "base")
    model = open_model(folder, 48).cross_encoder
    settings = TrainingSettings(method=method)
    if method == "lora":
        add_adapter(model, settings)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    trained = logits(model, PAIRS)
    if method == "lora":
        model = merged(model, folder, tmp_path / "adapter")
    platt = Platt(1.7, -0.4)
    write_folder(model, platt, 48, tmp_path / "model")
    np.testing.assert_allclose(open_folder(tmp_path / "model").predict(PAIRS), platt(trained), atol=1e-5)
    for (query, passage), expected in zip(PAIRS, platt(trained), strict=True):
        assert served_scores(tmp_path / "model", query, [passage])[0] == pytest.approx(expected, abs=1e-5)


def test_the_folder_cuts_a_long_passage_where_training_did(tmp_path):
    model = open_model(save_bert(tmp_path / "base", ALPHABET, labels=1), 16).cross_encoder
    long = [("天地", "玄黄" * 25_000)]
    trained = logits(model, long)
    write_folder(model, Platt(1, 0), 16, tmp_path / "model")
    np.testing.assert_allclose(logits(open_folder(tmp_path / "model"), long), trained, atol=1e-5)
    assert open_folder(tmp_path / "model").max_seq_length == 16


def test_an_adapter_brings_its_own_tokenizer(tmp_path):
    base = save_bert(tmp_path / "base", ALPHABET, labels=1)
    model = open_model(base, 48).cross_encoder
    add_adapter(model, TrainingSettings(method="lora"))
    trained = logits(model, PAIRS)
    # The base's tokenizer changes after training: the merged model must not follow it.
    save_bert(tmp_path / "other", ALPHABET[::-1], labels=1)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tmp_path / "other" / name, base / name)
    np.testing.assert_allclose(logits(merged(model, base, tmp_path / "adapter"), PAIRS), trained, atol=1e-4)


# What cannot be opened


def test_a_tokenizer_of_a_larger_model_is_refused_in_a_line(tmp_path):
    folder = save_bert(tmp_path / "base", "天地玄黄", labels=1)
    save_bert(tmp_path / "other", ALPHABET, labels=1)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tmp_path / "other" / name, folder / name)
    with pytest.raises(BadInput, match=r"^base: [^\n]+do not belong together$"):
        open_model(folder, 32)


def test_a_tokenizer_that_does_not_know_the_texts_is_said_in_a_line(tmp_path):
    model = open_model(save_bert(tmp_path / "base", ALPHABET, labels=1), 32).cross_encoder
    assert unknown_tokens_warning(model.tokenizer, ["天地玄黄"], tmp_path) == ""
    assert "does not know 100%" in unknown_tokens_warning(model.tokenizer, ["鱼油孕妇"], tmp_path)


@pytest.mark.parametrize("labels", [2, 3])
def test_a_model_of_several_scores_is_refused_in_a_line(tmp_path, labels):
    with pytest.raises(BadInput, match=rf"^base: [^\n]+one score[^\n]+{labels}$"):
        open_model(save_bert(tmp_path / "base", ALPHABET, labels=labels), 32)


def test_a_model_that_reads_less_than_is_asked_for_is_refused_in_a_line(tmp_path):
    with pytest.raises(BadInput, match=r"^max_length: 512 tokens, but [^\n]+ reads 64 at most$"):
        open_model(save_bert(tmp_path / "base", ALPHABET, labels=1), 512)


@pytest.mark.parametrize("damage", ["missing", "empty", "no weights", "no tokenizer", "broken config"])
def test_a_folder_that_holds_no_whole_model_is_refused_in_a_line(tmp_path, damage):
    folder = save_bert(tmp_path / "base", ALPHABET, labels=1)
    if damage == "missing":
        shutil.rmtree(folder)
    elif damage == "empty":
        shutil.rmtree(folder)
        folder.mkdir()
    elif damage == "no weights":
        (folder / "model.safetensors").unlink()
    elif damage == "no tokenizer":
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer_config.json").unlink()
    else:
        (folder / "config.json").write_text(json.dumps({"model_type": "unheard-of"}))
    with pytest.raises(BadInput, match=r"^base: [^\n]+$"):
        open_model(folder, 32)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_qlora_without_a_gpu_is_refused_in_a_line():
    with pytest.raises(BadInput, match=r"^training\.method: qlora needs a CUDA device[^\n]*$"):
        check_method(TrainingSettings(method="qlora"))
