"""sentence-transformers' trainer, on groups."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from sentence_transformers.cross_encoder import CrossEncoderTrainer
from torch import Tensor
from torch.utils.data import DataLoader

from reranker.settings.run import TrainingSettings
from reranker.training.batching import GroupBatches, GroupCollator, Groups, scatter
from reranker.training.losses import cross_entropy_ratio, group_loss, spread
from reranker.training.watching import Watch
from reward.records.files import BadInput


def uses_bf16(precision: str) -> bool:
    """Return whether training computes in bfloat16: as `TrainingSettings.precision` says; `auto` where GPU or CPU has
    it in hardware."""
    if precision != "auto":
        return precision == "bf16"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    has: dict[str, bool] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # torch 2.11 of the GPU environment may lack it
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


class GroupLoss(torch.nn.Module):
    """The loss of a batch from `GroupCollator`. `model` is a part of it: the trainer optimises what its loss holds.

    Only training computes in bfloat16. Validation, calibration and export compute in the weights' own precision, which
    is what the service gives.

    Args:
        seen: cross-entropy ratio and spread of the newest batch.
    """

    def __init__(self, model: Any, settings: TrainingSettings) -> None:
        super().__init__()
        self.model, self._settings = model, settings
        self._bf16 = uses_bf16(settings.precision)
        self.seen = (0.0, 0.0)

    def forward(self, inputs: list[Any], labels: Tensor, prompt: str | None = None, task: str | None = None) -> Tensor:
        chunks, places, teacher = inputs
        with torch.autocast(labels.device.type, torch.bfloat16) if self._bf16 else nullcontext():
            found = [self.model(chunk)["scores"].view(-1).float() for chunk in chunks]
        scores = scatter(found, places, labels.shape)
        self.seen = cross_entropy_ratio(scores, labels), spread(scores, labels)
        taught = teacher if self._settings.loss == "margin_mse" else None
        return group_loss(self._settings.loss, scores, labels, taught, self._settings.margin)


class GroupTrainer(CrossEncoderTrainer):
    """Draws groups anew every epoch, computes a batch in chunks of like length, and shows every step to the watch."""

    def __init__(self, *, groups: Groups, collator: GroupCollator, watch: Watch, **options: Any) -> None:
        self._groups, self._collator, self._watch = groups, collator, watch
        super().__init__(data_collator=collator, **options)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Leave out the library's card: `training.model_card` writes ours."""

    def get_train_dataloader(self) -> DataLoader[Any]:
        batches = GroupBatches(self._groups, self.args.train_batch_size, self.args.seed)
        loader = DataLoader(self._groups, batch_sampler=batches, collate_fn=self._collator)
        self.accelerator.even_batches = False
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        found = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss = found[0] if return_outputs else found
        self._watch.step(self.state.global_step + 1, loss.item(), *self.loss.seen)
        return found

    def load_best(self, checkpoint: str) -> None:
        """Load a checkpoint's weights into the model."""
        self._load_from_checkpoint(checkpoint)

    def _load_from_checkpoint(self, checkpoint_path: str, *_: Any) -> None:
        """Load weights, or the adapter's, into the model that is trained."""
        from peft import set_peft_model_state_dict
        from peft.utils import load_peft_weights

        if not getattr(self.model.model, "_hf_peft_config_loaded", False):
            super()._load_from_checkpoint(checkpoint_path)
            return
        found = load_peft_weights(checkpoint_path, device="cpu")
        found = {name.removeprefix("base_model.model."): value for name, value in found.items()}
        result = set_peft_model_state_dict(self.model.model, found)
        if result.unexpected_keys:
            raise BadInput(f"{checkpoint_path}: not an adapter of this model ({result.unexpected_keys[0]})")
