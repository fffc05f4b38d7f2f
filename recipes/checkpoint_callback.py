"""What happens to an RL checkpoint once verl has saved it (`trainer.checkpoint_callback_class`).

It is named by its epoch (`recipes.epoch_links`), old weights go, and once its step is validated it may become the best
(`recipes.best_checkpoint`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from verl.trainer.ppo.checkpoint_callback import CheckpointCallback

from recipes.best_checkpoint import keep_best
from recipes.checkpoints import drop_old_weights
from recipes.epoch_links import link_epoch
from recipes.run_record import RECORD_FILE
from reward.settings.recipe import parse_settings


class CheckpointKeeper(CheckpointCallback):
    """verl calls `on_save` after each checkpoint, and validates the saved step afterwards."""

    def __init__(self, config: Any = None):
        super().__init__(config)
        node: Any = OmegaConf.to_container(config.rewriter, resolve=True)
        self._settings = parse_settings(node, "rewriter")
        self._run = Path(config.trainer.default_local_dir)
        self._config_sha256 = json.loads((self._run / RECORD_FILE).read_text(encoding="utf-8"))["config_sha256"]
        self._watching = False

    def on_save(
        self, trainer: Any, global_step: int, checkpoint_dir: str, async_save: bool = False, **kwargs: Any
    ) -> None:
        self._watch(trainer)
        # An earlier step's turn comes first: it may be about to lose its weights.
        self._keep_best()
        drop_old_weights(self._run, "actor", self.config.trainer.max_actor_ckpt_to_keep)
        drop_old_weights(self._run, "critic", self.config.trainer.max_critic_ckpt_to_keep)
        link_epoch(Path(checkpoint_dir), global_step, len(trainer.train_dataloader))

    def _watch(self, trainer: Any) -> None:
        """Compare again whenever a validation has been logged: the next save may remove what it was about."""
        if self._watching:
            return
        self._watching = True
        log = trainer.logger.log

        def log_then_compare(data: dict[str, Any], step: int, **rest: Any) -> None:
            log(data=data, step=step, **rest)
            if any(name.startswith("val-") for name in data):
                self._keep_best()

        trainer.logger.log = log_then_compare

    def _keep_best(self) -> None:
        keep_best(self._run, self._settings, self._config_sha256)
