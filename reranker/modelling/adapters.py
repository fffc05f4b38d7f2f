"""LoRA and QLoRA: small matrices beside frozen ones, merged into them for export."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from reranker.modelling.head import outer_head
from reranker.settings.run import TrainingSettings
from reward.records.files import BadInput


def check_method(settings: TrainingSettings) -> None:
    """
    Raises:
        BadInput: QLoRA without a GPU or without bitsandbytes.
    """
    import torch

    if settings.method != "qlora":
        return
    if not torch.cuda.is_available():
        raise BadInput("training.method: qlora needs a CUDA device, and there is none: write lora")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise BadInput("training.method: qlora needs bitsandbytes: install the extra 'reranker-gpu'")


def add_adapter(cross_encoder: Any, settings: TrainingSettings) -> None:
    """Add LoRA (arXiv 2106.09685) to every linear layer of the backbone; the head, and a pooler, are trained whole."""
    import torch
    from peft import LoraConfig, TaskType

    model = cross_encoder.model
    whole = [
        outer_head(model),
        *(["pooler"] if any(name.endswith("pooler") for name, _ in model.named_modules()) else []),
    ]
    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and not any(part in name.split(".") for part in whole)
    ]
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=settings.lora.rank,
        lora_alpha=settings.lora.alpha,
        lora_dropout=settings.lora.dropout,
        target_modules=targets,
        modules_to_save=whole,
    )
    cross_encoder.add_adapter(config)


def merged(cross_encoder: Any, base: Path, folder: Path) -> Any:
    """Write the adapter with its tokenizer to `folder`, load both from there over unquantised base weights, and return
    the model with the adapter merged, with that tokenizer: with the base's own, scores shift without a word."""
    from peft import PeftModel
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer
    from transformers import AutoModelForSequenceClassification

    cross_encoder.save_pretrained(str(folder))
    pad = cross_encoder.tokenizer.pad_token_id
    plain = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=1, pad_token_id=pad, local_files_only=True
    )
    model = PeftModel.from_pretrained(plain, str(folder)).merge_and_unload()
    part = folder / "merged"
    model.save_pretrained(part)
    cross_encoder.tokenizer.save_pretrained(part)
    module = Transformer(str(part), transformer_task="sequence-classification", model_kwargs={"local_files_only": True})
    return CrossEncoder(modules=[module], num_labels=1, local_files_only=True)
