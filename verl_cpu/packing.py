"""One row for all rollouts of a prompt, and logits for what was sampled alone: what a CPU need not compute twice.

verl gives each rollout a row, pads it to the longest of its micro-batch, and computes logits for every token. Here a
prompt is read once for all of its siblings in the micro-batch:

    columns      ... P-1 | P ...
    row          padding, prompt | response 1, response 2, ..., padding

Prompts end in the same column P, so that the logits which count are the last ones of every row. A response sees its
prompt and itself. Log-probabilities and gradients are those of verl, summed in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Packed:
    """A micro-batch in rows (R, C), and where its tokens are.

    Args:
        input_ids: (R, C) token ids, 0 where padded.
        position_ids: (R, C) a token's place in its own prompt and response.
        attention_mask: (R, 1, C, C), true where a token (row of the mask) sees another (column).
        logits: how many of the last columns need logits, K.
        kept: (T,) places in the flat batch whose log-probability counts: the last token of a prompt, and every token
            of a response but its last.
        found: (T,) where the logits of these are in the flattened (R, K).
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    attention_mask: torch.Tensor
    logits: int
    kept: torch.Tensor
    found: torch.Tensor


def pack(ids: torch.Tensor, offsets: Sequence[int], prompts: Sequence[int]) -> Packed:
    """Lay out a batch of sequences, each a prompt and a response.

    Args:
        ids: (N,) tokens of all sequences, one after the other.
        offsets: where each sequence starts, and at last N.
        prompts: each one's tokens that are its prompt, at least 1.
    """
    groups: dict[bytes, list[int]] = {}
    spans = list(zip(offsets[:-1], prompts, offsets[1:], strict=True))
    for index, (start, length, _) in enumerate(spans):
        groups.setdefault(ids[start : start + length].numpy().tobytes(), []).append(index)
    longest = max(prompts)
    answers = [sum(spans[i][2] - spans[i][0] - spans[i][1] for i in members) for members in groups.values()]
    columns = longest + max(answers)
    shape = (len(groups), columns)
    # Which part of its row a token is: -1 padding, 0 the prompt, then a response each.
    part = torch.full(shape, -1)
    packed, places = torch.zeros(shape, dtype=ids.dtype), torch.zeros(shape, dtype=torch.long)
    kept, found = [], []
    for row, members in enumerate(groups.values()):
        start, length, _ = spans[members[0]]
        packed[row, longest - length : longest] = ids[start : start + length]
        places[row, longest - length : longest] = torch.arange(length)
        part[row, longest - length : longest] = 0
        column = longest
        for number, index in enumerate(members, start=1):
            start, _, end = spans[index]
            size = end - start - length
            packed[row, column : column + size] = ids[start + length : end]
            places[row, column : column + size] = torch.arange(length, length + size)
            part[row, column : column + size] = number
            if size:
                # A token is foretold where the one before it is: the first of a response at the end of the prompt.
                before = torch.arange(column - 1, column + size - 1)
                before[0] = longest - 1
                kept.append(torch.arange(start + length - 1, end - 1))
                found.append(row * (columns - longest + 1) + before - (longest - 1))
            column += size
    same, prompt = part[:, :, None] == part[:, None, :], part[:, None, :] == 0
    seen = (same | prompt) & (part[:, None, :] >= 0) & (places[:, None, :] <= places[:, :, None])
    # Padding sees itself: a softmax over nothing would be no number.
    seen |= torch.eye(columns, dtype=torch.bool)
    nothing = [torch.zeros(0, dtype=torch.long)]
    return Packed(
        packed, places, seen[:, None], columns - longest + 1, torch.cat(kept or nothing), torch.cat(found or nothing)
    )


def sibling_order(ids: torch.Tensor, offsets: Sequence[int], prompts: Sequence[int]) -> list[int]:
    """Order sequences so that siblings follow one another, and sequences of similar length too.

    Args: as those of `pack`.
    """

    def key(index: int) -> tuple[int, bytes, int]:
        start, end = offsets[index], offsets[index + 1]
        return prompts[index], ids[start : start + prompts[index]].numpy().tobytes(), end - start

    return sorted(range(len(prompts)), key=key)
