"""Seconds: our training step beside sentence-transformers' plain example, and reranking 30 candidates."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from reranker.data.sampling import Sampler, batches
from reranker.modelling.opening import open_model
from reranker.settings.run import TrainingSettings
from reranker.training.batching import CPU_CHUNK, GPU_CHUNK, GroupCollator
from reranker.training.trainer import GroupLoss


def training_throughput(base: Path, sampler: Sampler, max_length: int, steps: int, batch: int) -> dict[str, float]:
    """Return pairs a second of our step and of `RankNetLoss` as the library's example has it (same groups, same order
    of work: forward, backward, AdamW), measured in turns in one process."""
    from sentence_transformers.cross_encoder.losses import RankNetLoss

    groups = sampler.groups(0)
    chunk = GPU_CHUNK if torch.cuda.is_available() else CPU_CHUNK
    ours_model, plain_model = (open_model(base, max_length).cross_encoder for _ in range(2))
    settings = TrainingSettings(loss="ranknet")
    ours, collate = GroupLoss(ours_model, settings), GroupCollator(ours_model, chunk)
    plain = RankNetLoss(plain_model)
    # The example shuffles; ours brings groups of like length together.
    sorted_batches = batches(groups, batch, 0, 0)[:steps]
    shuffled = [index for one in sorted_batches for index in one]
    order = torch.randperm(len(shuffled), generator=torch.Generator().manual_seed(0)).tolist()
    plain_batches = [[shuffled[i] for i in order[start : start + batch]] for start in range(0, len(order), batch)]

    def our_loss(of: Sequence[int]) -> torch.Tensor:
        inputs = collate([groups[i] for i in of])
        labels = inputs.pop("label").to(ours_model.device)
        return ours(list(inputs.values()), labels)

    def plain_loss(of: Sequence[int]) -> torch.Tensor:
        queries = [groups[i].query for i in of]
        texts = [[one.text for one in groups[i].passages] for i in of]
        labels = [
            torch.tensor([float(place < groups[i].positives) for place in range(len(groups[i].passages))]) for i in of
        ]
        found: torch.Tensor = plain([queries, texts], labels)
        return found

    spent = {"ours": 0.0, "plain": 0.0}
    sides: list[tuple[str, Any, Callable[[Sequence[int]], torch.Tensor], list[list[int]]]] = [
        ("ours", ours_model, our_loss, sorted_batches),
        ("plain", plain_model, plain_loss, plain_batches),
    ]
    optimisers = {name: torch.optim.AdamW(model.parameters(), lr=1e-5) for name, model, _, _ in sides}
    for step in range(len(sorted_batches)):
        for name, model, loss_of, plan in sides:
            model.train()
            started = time.perf_counter()
            loss_of(plan[step]).backward()
            optimisers[name].step()
            optimisers[name].zero_grad()
            if step:  # the first warms up
                spent[name] += time.perf_counter() - started
    pairs = sum(len(groups[i].passages) for one in sorted_batches[1:] for i in one)
    plain_pairs = sum(len(groups[i].passages) for one in plain_batches[1:] for i in one)
    rates = {"ours": pairs / spent["ours"], "plain": plain_pairs / spent["plain"]}
    return {"pairs_per_second": rates["ours"], "plain": rates["plain"], "ratio": rates["ours"] / rates["plain"]}


def reranking_seconds(score: Callable[[list[tuple[str, str]]], Any], pairs: list[tuple[str, str]], n: int = 7) -> float:
    """Return the median seconds of scoring `pairs`, of `n` times after one to warm up."""
    found = []
    for time_number in range(n + 1):
        started = time.perf_counter()
        score(pairs)
        if time_number:
            found.append(time.perf_counter() - started)
    return median(found)


def pairs_of_tokens(tokenizer: Any, texts: Sequence[str], tokens: int, n: int) -> list[tuple[str, str]]:
    """Return `n` pairs that are exactly cut at `tokens`: long passages made of the texts."""
    long = " ".join(texts)
    whole = tokenizer(long, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    while len(whole) < n + tokens:
        whole = whole + whole
    return [(texts[0][:20], tokenizer.decode(whole[i : i + tokens])) for i in range(n)]
