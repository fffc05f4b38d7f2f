"""Batches of groups for the trainer: drawn for the epoch, tokenised once, in chunks of like length."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from reranker.data.sampling import Group, batches
from reranker.data.sampling import Sampler as GroupSampler

# Pairs in one pass. A CPU gains from little padding, a GPU from few passes.
CPU_CHUNK, GPU_CHUNK = 16, 128


class Groups(Dataset[Group]):
    """The groups of the current epoch. accelerate calls `set_epoch` at each epoch's start, also after a resume."""

    def __init__(self, sampler: GroupSampler) -> None:
        self._sampler = sampler
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.groups = self._sampler.groups(epoch)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> Group:
        return self.groups[index]


class GroupBatches(Sampler[list[int]]):
    """The epoch's batches of group indices (`reranker.data.sampling.batches`)."""

    def __init__(self, groups: Groups, size: int, seed: int) -> None:
        self._groups, self._size, self._seed = groups, size, seed

    def __len__(self) -> int:
        return -(-len(self._groups) // self._size)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(batches(self._groups.groups, self._size, self._seed, self._groups.epoch))


class GroupCollator:
    """Groups → chunks of features, and where each pair's score belongs."""

    def __init__(self, cross_encoder: Any, chunk: int) -> None:
        self._cross_encoder, self._chunk = cross_encoder, chunk

    def __call__(self, groups: list[Group]) -> dict[str, Any]:
        pairs = [(group.query, passage.text) for group in groups for passage in group.passages]
        # By characters: a good stand-in for tokens, and no text is tokenised twice.
        order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i][0]) - len(pairs[i][1]))
        chunks = [
            self._cross_encoder.preprocess([pairs[i] for i in order[start : start + self._chunk]])
            for start in range(0, len(order), self._chunk)
        ]
        width = max(len(group.passages) for group in groups)
        labels = torch.full((len(groups), width), -1, dtype=torch.long)
        teacher = torch.zeros(len(groups), width)
        places = torch.zeros(len(pairs), dtype=torch.long)
        at = 0
        for row, group in enumerate(groups):
            n = len(group.passages)
            labels[row, :n] = (torch.arange(n) < group.positives).long()
            teacher[row, :n] = torch.tensor([passage.score or 0.0 for passage in group.passages])
            places[at : at + n] = row * width + torch.arange(n)
            at += n
        return {"chunks": chunks, "places": places[order], "label": labels, "teacher": teacher}


def scatter(scores: list[Tensor], places: Tensor, shape: torch.Size) -> Tensor:
    """Put the chunks' scores to their places in (groups, passages); padding gets 0."""
    flat = torch.cat(scores)
    return flat.new_zeros(shape.numel()).scatter(0, places, flat).view(shape)
