"""Open the model that training starts from, as a sequence classifier of one score."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reward.records.files import BadInput

_log = logging.getLogger(__name__)
_MOST_UNKNOWN = 0.2  # share of unknown tokens above which a tokenizer does not fit the texts


@dataclass
class OpenedModel:
    """Args:
    cross_encoder: a sentence_transformers CrossEncoder with one score.
    causal: it reads the last token (Qwen3-Reranker), not the first.
    new_head: its head is random: it ranks by chance until it is trained.
    warnings: what a user should know, a line each.
    """

    cross_encoder: Any
    causal: bool
    new_head: bool
    warnings: list[str] = field(default_factory=list)


def open_model(base: Path, max_length: int, quantised: bool = False) -> OpenedModel:
    """Open an encoder with or without a head, a causal reranker, or a causal language model.

    A causal language model that answers "yes" or "no" becomes a classifier that gives the same score: its head is the
    difference of the two tokens' output rows. An embedding model or plain encoder gets a random head, with a warning.

    Args:
        quantised: load the weights in 4 bits (QLoRA).

    Raises:
        BadInput: no such folder, no model that can be loaded, more than one score, or a tokenizer of another model.
    """
    if not (base / "config.json").is_file():
        adapter = ": an adapter without its model" if (base / "adapter_config.json").is_file() else ""
        raise BadInput(f"base: {base}: no model's folder (it holds no config.json{adapter})")
    try:
        return _open(base, max_length, quantised)
    except BadInput:
        raise
    except Exception as error:  # every library below has exceptions of its own for a broken folder
        reason = " ".join(f"{type(error).__name__} {error}".split())[:300]
        raise BadInput(f"base: {base}: no model that can be loaded ({reason})") from None


def _open(base: Path, max_length: int, quantised: bool) -> OpenedModel:
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer
    from transformers import AutoConfig, AutoTokenizer

    warnings: list[str] = []
    config = AutoConfig.from_pretrained(base, local_files_only=True)
    architecture = (getattr(config, "architectures", None) or [""])[0]
    generative = architecture.endswith("ForCausalLM")
    headless = not generative and not architecture.endswith("ForSequenceClassification")
    if architecture.endswith("ForSequenceClassification") and config.num_labels != 1:
        raise BadInput(f"base: {base}: a reranker gives one score, this model gives {config.num_labels}")
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        if tokenizer.pad_token is None:
            raise BadInput(f"base: {base}: its tokenizer has neither a padding nor an end token")
        warnings.append(f"base: {base}: its tokenizer has no padding token: {tokenizer.pad_token!r} pads")
    model_kwargs: dict[str, Any] = {"local_files_only": True}
    if quantised:
        model_kwargs["quantization_config"] = four_bits()
    module = Transformer(
        str(base),
        transformer_task="sequence-classification",
        model_kwargs=model_kwargs,
        config_kwargs={"num_labels": 1, "pad_token_id": tokenizer.pad_token_id, "local_files_only": True},
        processor_kwargs={"model_max_length": max_length, "local_files_only": True},
    )
    if module.tokenizer.pad_token is None:
        module.tokenizer.pad_token = tokenizer.pad_token
    module.model.config.pad_token_id = tokenizer.pad_token_id
    check_vocabulary(module.model, module.tokenizer, base)
    limit = getattr(module.model.config, "max_position_embeddings", None)
    if limit is not None and max_length > limit:
        raise BadInput(f"max_length: {max_length} tokens, but {base} reads {limit} at most")
    causal = hasattr(module.model, "score") and not hasattr(module.model, "classifier")
    if generative:
        headless = not _head_from_words(module.model, module.tokenizer, base)
    if headless:
        warnings.append(
            f"base: {base}: {architecture or 'this model'} has no head that gives scores: a random one is added, "
            "so the base ranks by chance and training needs more data"
        )
    for line in warnings:
        _log.warning(line)
    return OpenedModel(CrossEncoder(modules=[module], num_labels=1, local_files_only=True), causal, headless, warnings)


def four_bits() -> Any:
    """Return QLoRA's quantisation (arXiv 2305.14314): NF4, doubly quantised, computed in bf16; the head stays whole."""
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=["score", "classifier"],
    )


def check_vocabulary(model: Any, tokenizer: Any, folder: Path) -> None:
    """
    Raises:
        BadInput: the tokenizer has ids that the model has no embedding for, or so few that most embeddings have no
            token (a folder without tokenizer files gives one of special tokens alone).
    """
    rows = model.get_input_embeddings().weight.shape[0]
    tokens = max(tokenizer.get_vocab().values(), default=0) + 1
    if tokens > rows or tokens < rows / 2:
        raise BadInput(
            f"base: {folder}: its tokenizer has {tokens} tokens, its model embeddings for {rows}: "
            "they do not belong together"
        )


def unknown_share(tokenizer: Any, texts: Sequence[str]) -> float:
    """Return the share of tokens that the tokenizer does not know."""
    if tokenizer.unk_token_id is None or not texts:
        return 0.0
    ids = [
        token for row in tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] for token in row
    ]
    return ids.count(tokenizer.unk_token_id) / max(1, len(ids))


def unknown_tokens_warning(tokenizer: Any, texts: Sequence[str], base: Path) -> str:
    """Return a line on a tokenizer that does not know the texts' script; empty when it does."""
    share = unknown_share(tokenizer, texts)
    if share <= _MOST_UNKNOWN:
        return ""
    return f"base: {base}: its tokenizer does not know {share:.0%} of the texts' tokens: is it another language's?"


def _head_from_words(model: Any, tokenizer: Any, base: Path) -> bool:
    """Set the head to the output rows of "yes" minus "no"; return whether the tokenizer has both words."""
    import torch
    from transformers import AutoModelForCausalLM

    yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
    if None in (yes, no) or tokenizer.unk_token_id in (yes, no):
        return False
    language_model = AutoModelForCausalLM.from_pretrained(base, local_files_only=True)
    rows = language_model.get_output_embeddings().weight
    with torch.no_grad():
        model.score.weight.copy_((rows[yes] - rows[no])[None].to(model.score.weight))
    return True
