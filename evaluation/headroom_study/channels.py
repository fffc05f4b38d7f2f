"""The channels that are measured apart, as switches of one request to the retrieval service (docs/rag.md)."""

from __future__ import annotations

from collections.abc import Mapping

SERVICE = "service"  # no switch is sent: retrieval as the tenant has it
_ALONE = {"doc2query": False, "query2doc": False, "rerank": False}
CHANNELS: dict[str, Mapping[str, bool] | None] = {
    SERVICE: None,
    "bm25": {"keyword": True, "dense": False, **_ALONE},
    "dense": {"keyword": False, "dense": True, **_ALONE},
    "hybrid": {"keyword": True, "dense": True, **_ALONE},
}


def why_unmeasured(channel: str, states: Mapping[str, str]) -> str | None:
    """Say why an answer does not measure a channel, None where it does.

    Args:
        states: what the service says became of each switch; empty for a service without switches.
    """
    switches = CHANNELS[channel]
    if switches is None:
        return None
    for name, wanted in switches.items():
        state = states.get(name)
        if state is None and (wanted or name in ("keyword", "dense")):
            return f"the service names no state of {name}: it cannot switch channels"
        if wanted and state != "on":
            return f"{name}: {state}"
        if not wanted and state == "on":
            return f"{name}: on, although it was switched off"
    return None
