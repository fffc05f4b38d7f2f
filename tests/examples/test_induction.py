"""The laid induction heads: an untrained model repeats what it has read, at any distance a prompt has."""

from __future__ import annotations

import pytest
import torch

from examples.make_tiny_model import make_model, make_tokenizer
from reward.records.files import BadInput

TOKENIZER = make_tokenizer(["".join(chr(0x4E00 + i) for i in range(2000))], [])


def share_repeated(model: torch.nn.Module, gap: int) -> float:
    """How often the model continues the second reading of 20 tokens as the first went, `gap` tokens later."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randperm(2000, generator=generator)[: 20 + gap] + 260
    read_twice = torch.cat([ids, ids[:20]])
    with torch.no_grad():
        predicted = model(read_twice[None]).logits[0].argmax(-1)
    return float((predicted[-20:-1] == ids[1:20]).float().mean())


@pytest.mark.parametrize("gap", [0, 30, 120])
def test_an_untrained_model_repeats_what_it_has_read(gap):
    laid, random = (make_model(TOKENIZER, 192, 3, seed=0, copies=copies) for copies in (True, False))
    assert share_repeated(laid, gap) > 0.75
    assert share_repeated(random, gap) < 0.1


def test_a_model_without_room_is_refused():
    with pytest.raises(BadInput, match=r"--induction-heads: .*two layers"):
        make_model(TOKENIZER, 192, 1, seed=0, copies=True)
