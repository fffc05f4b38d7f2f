"""How fast could anyone be? Bounds on the time that calls with arrival times need on a service's parallel slots.

The problem is P | r_j | C_max of scheduling theory: m identical machines (slots), job j arriving at r_j and lasting
p_j, no interruption. The exact optimum is NP-hard; the bounds computed here never exceed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """A call: when it can be made at the earliest, and how long the service takes for it. Seconds."""

    arrival: float
    duration: float


def lower_bound(jobs: Sequence[Job], slots: int) -> float:
    """Return a time before which no schedule can end all jobs: the larger of the two bounds on which the analyses of
    list scheduling rest (Graham, "Bounds on multiprocessing timing anomalies", SIAM J. Appl. Math. 17, 1969; with
    arrival times: Hall and Shmoys, "Approximation schemes for constrained scheduling problems", FOCS 1989).

    - Nobody ends before its own arrival plus its duration: max_j (r_j + p_j).
    - What arrives at time t or later is done after t, by at most `slots` at a time:
      max_t (t + sum of p_j with r_j >= t / slots).

    Returns:
        Seconds on the clock of the arrivals; 0 without jobs.
    """
    bound, work = 0.0, 0.0
    for job in sorted(jobs, key=lambda job: job.arrival, reverse=True):
        work += job.duration
        bound = max(bound, job.arrival + job.duration, job.arrival + work / slots)
    return bound
