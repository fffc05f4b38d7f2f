"""The platform verl asks for its device, plus the gaps of torch on CPU that verl's code falls into.

verl imports this module in every process (`VERL_USE_EXTERNAL_MODULES`), before any of its own heavy modules.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from ray.runtime_context import RuntimeContext
from verl.plugin.platform import PlatformBase, PlatformRegistry


def fill_torch_cpu() -> None:
    """Give `torch.cpu` the memory and random-state functions that verl calls on its device module.

    Can go once torch.cpu has them (torch 2.13 does not) or verl guards the calls.
    """
    for name in ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"):
        if not hasattr(torch.cpu, name):
            setattr(torch.cpu, name, lambda *args, **kwargs: 0)
    for name in ("empty_cache", "ipc_collect", "reset_peak_memory_stats", "manual_seed", "manual_seed_all"):
        if not hasattr(torch.cpu, name):
            setattr(torch.cpu, name, lambda *args, **kwargs: None)
    # Checkpoints save and restore the device's random state: on CPU that is torch's own.
    torch.cpu.get_rng_state, torch.cpu.set_rng_state = torch.get_rng_state, torch.set_rng_state  # type: ignore


def patch_process_group() -> None:
    """Name the gloo back end once, and apply the engine patches in each training worker.

    verl 0.9.1 builds the back end as "cpu:gloo,<device>:<backend>", a duplicate key when the device is the CPU.
    Can go once verl/utils/distributed.py distinguishes the two.
    """
    original = dist.init_process_group

    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> None:
        # Only training workers open a process group, and by then verl is fully imported: the engine module can be
        # patched without an import cycle.
        import verl_cpu.engines  # noqa: F401

        original("cpu:gloo" if backend == "cpu:gloo,cpu:gloo" else backend, *args, **kwargs)

    dist.init_process_group = init_process_group


def patch_average_reduction() -> None:
    """Emulate `ReduceOp.AVG`, which gloo lacks, by a sum and a division. Can go once gloo has it."""
    original = dist.all_reduce

    def all_reduce(tensor: torch.Tensor, op: Any = dist.ReduceOp.SUM, group: Any = None, async_op: bool = False) -> Any:
        if op == dist.ReduceOp.AVG and not async_op:
            original(tensor, op=dist.ReduceOp.SUM, group=group)
            tensor.div_(dist.get_world_size(group))
            return None
        return original(tensor, op=op, group=group, async_op=async_op)

    dist.all_reduce = all_reduce


def name_sockets_by_cluster() -> None:
    """Let two runs on one machine exchange weights apart.

    verl 0.9.1 names the socket between trainer and rollout engine by Ray's job id, which is 01000000 in every run that
    starts its own Ray. Two runs then meet in it and wait for ever, or one gets the other's weights. Can go once the
    name is the run's.
    """
    of_cluster = RuntimeContext.get_job_id

    def get_job_id(self: RuntimeContext) -> str:
        return f"{of_cluster(self)}-{self.gcs_address.rpartition(':')[2]}"

    RuntimeContext.get_job_id = get_job_id


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):
    device_name = "cpu"
    vendor_name = "cpu"
    device_module = torch.cpu

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return os.environ.get("VERL_PLATFORM") == "cpu"

    def current_device(self) -> Any:
        return torch.device("cpu")  # verl passes it to `.to(...)`

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None: ...

    def synchronize(self, device_index: int | None = None) -> None: ...

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None: ...

    def empty_cache(self) -> None: ...

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None: ...

    def profiler_stop(self) -> None: ...

    def ray_resource_name(self) -> str:
        return "GPU"  # a logical one: the recipe starts Ray with num_gpus=1

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False  # weights travel to the rollout engine by shared memory

    def cudart(self) -> Any:
        return None


fill_torch_cpu()
patch_process_group()
patch_average_reduction()
name_sockets_by_cluster()
