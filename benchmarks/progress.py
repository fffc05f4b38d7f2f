"""The bar that the benchmarks show while they measure."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


def progress_bar(*, refresh_per_second: float = 10, transient: bool = False) -> Progress:
    """Make a bar on standard error: what is under way, how much of it is done, and for how long it has run."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        refresh_per_second=refresh_per_second,
        transient=transient,
    )
