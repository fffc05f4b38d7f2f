"""Lets verl train a critic by LoRA: verl imports this module in every process (`VERL_USE_EXTERNAL_MODULES`).

verl 0.9.1 makes the critic's adapters as those of a causal language model, and PEFT asks such a model how it prepares
inputs for generation. A critic generates nothing and has no such method: a run of PPO with LoRA ends at its start. This
can go once verl names the critic's task to PEFT.
"""

from __future__ import annotations

from transformers.modeling_layers import GenericForTokenClassification

# setattr: no type checker knows an attribute that the class lacks.
setattr(GenericForTokenClassification, "prepare_inputs_for_generation", None)  # noqa: B010
