"""Measures the phases of a training step in the process that runs it: seconds, tokens, MFU, memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

GIB = 2**30


class Probe:
    """Records every measured call; GiB are of this process on its GPU, 0 without one."""

    def __init__(self) -> None:
        self.phases: dict[str, list[dict[str, float | None]]] = {}
        self.facts: dict[str, Any] = {}
        self._micro_batches: list[int] = []
        self._before_optimizer = 0.0

    def attach(self, engine: Any) -> None:
        """Watch the engine: tokens of each micro-batch, and the optimiser's step apart from what precedes it."""
        forward, optimize = engine.forward_step, engine.optimizer_step
        initialize = engine.initialize

        def forward_step(micro_batch: Any, *args: Any, **named: Any) -> Any:
            self._micro_batches.append(micro_batch["input_ids"].values().numel())
            return forward(micro_batch, *args, **named)

        def optimizer_step() -> Any:
            self._before_optimizer = peak()
            reset_peak()
            return optimize()

        def initialized() -> Any:
            result = initialize()
            self._describe(engine)
            return result

        engine.forward_step, engine.optimizer_step, engine.initialize = forward_step, optimizer_step, initialized
        if getattr(engine, "module", None) is not None:
            self._describe(engine)

    def measure(self, phase: str, call: Callable[[], Any]) -> Any:
        """Run the call and record it under `phase`; return its result."""
        self._micro_batches, self._before_optimizer = [], 0.0
        synchronize()
        reset_peak()
        started = time.perf_counter()
        result = call()
        synchronize()
        seconds = time.perf_counter() - started
        tokens = sum(self._micro_batches)
        record: dict[str, float | None] = {
            "seconds": seconds,
            "tokens": tokens,
            "micro_batches": len(self._micro_batches),
            "largest_micro_batch": max(self._micro_batches, default=0),
            "allocated": max(peak(), self._before_optimizer),
            "mfu": verl_mfu(result),
        }
        if self._before_optimizer:
            record |= {"forward_backward": self._before_optimizer, "optimizer": peak()}
        if torch.cuda.is_available():
            record |= {"reserved": torch.cuda.max_memory_reserved() / GIB, "after": torch.cuda.memory_allocated() / GIB}
        self.phases.setdefault(phase, []).append(record)
        print(f"{phase}: {record}", flush=True)
        return result

    def result(self) -> dict[str, Any]:
        """Return everything recorded, with the card's name and what of it is in use outside torch's allocator."""
        found = {"phases": self.phases, **self.facts, "device": "cpu"}
        if torch.cuda.is_available():
            free, total = torch.cuda.mem_get_info()
            found |= {
                "device": torch.cuda.get_device_name(),
                "promised_flops": promised_flops(),
                "total": total / GIB,
                "outside_allocator": (total - free - torch.cuda.memory_reserved()) / GIB,
            }
        return found

    def _describe(self, engine: Any) -> None:
        parameters = list(engine.module.parameters())
        self.facts = {
            "attention": engine.model_config.hf_config._attn_implementation,
            "parameters": sum(p.numel() for p in parameters),
            "trained": sum(p.numel() for p in parameters if p.requires_grad),
            "after_load": torch.cuda.memory_allocated() / GIB if torch.cuda.is_available() else 0.0,
        }


def verl_mfu(result: Any) -> float | None:
    """Return the mean of verl's own `mfu`; None where it reports none."""
    from verl.utils import tensordict_utils as tu

    metrics = tu.get(result, "metrics", default=None) if result is not None else None
    value = (metrics or {}).get("mfu")
    if isinstance(value, list):
        value = sum(value) / len(value) if value else None
    return None if value is None else float(value)


def promised_flops() -> float:
    """Return the card's dense bf16 operations a second as verl knows them; infinite for an unknown card."""
    from verl.utils.flops_counter import get_device_flops

    return float(get_device_flops(unit="B"))  # its smallest unit, one operation


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak() -> float:
    """GiB at most allocated since the last reset."""
    return torch.cuda.max_memory_allocated() / GIB if torch.cuda.is_available() else 0.0
