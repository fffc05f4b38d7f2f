"""A run on a Ray cluster that exists already: what has to be different from a run that starts its own Ray.

`ray job submit` sets `RAY_ADDRESS` for the command it starts, and verl joins that cluster. Its workers inherit the
environment of the nodes, not of the launcher: what they need goes into Ray's runtime environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from omegaconf import DictConfig, OmegaConf, open_dict

ADDRESS_VARIABLE = "RAY_ADDRESS"
# What Ray refuses to take when it joins: the nodes have said how large they are.
_SIZES = ("num_cpus", "num_gpus", "include_dashboard")


def joins_cluster(environment: Mapping[str, str] = os.environ) -> bool:
    """Say whether the run will join a Ray cluster instead of starting one."""
    return bool(environment.get(ADDRESS_VARIABLE))


def hand_to_workers(config: DictConfig, variables: Mapping[str, str]) -> None:
    """Let Ray set `variables` in every worker process of the run, on every node.

    Changes `ray_kwargs.ray_init` of the recipe. Variables that the job was submitted with are Ray's already: it refuses
    them a second time.
    """
    kept = {key: value for key, value in config.ray_kwargs.ray_init.items() if key not in _SIZES}
    runtime = OmegaConf.to_container(kept.pop("runtime_env", None) or OmegaConf.create({}), resolve=True)
    assert isinstance(runtime, dict)
    runtime["env_vars"] = {**variables, **runtime.get("env_vars", {})}
    with open_dict(config.ray_kwargs):
        config.ray_kwargs.ray_init = {**kept, "runtime_env": runtime}
