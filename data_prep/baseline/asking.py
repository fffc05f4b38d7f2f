"""Ask a service many questions: a fixed number at a time, answers in order, the time left on show, an orderly stop."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Any, Generic, TypeVar

import httpx
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from reward.records.files import BadInput, first_problem
from reward.settings.services import ServiceSettings

_AHEAD = 1000  # questions begun or waiting behind the first that has no answer yet: a bound on memory
_GRACE_SECONDS = 5.0  # for calls under way when a signal comes
_PROBE_SECONDS = 5.0
_LINE_SECONDS = 30.0  # between two lines where there is no terminal to draw a bar on

Q = TypeVar("Q")
A = TypeVar("A")
S = TypeVar("S", bound=ServiceSettings)


class Stopped(Exception):
    """SIGINT or SIGTERM came. `exit_code` is what a shell expects of a command that it ended."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def run_until_stopped(work: Callable[[], object], kept: str) -> int:
    """Run `work`; return 0, or the exit code of the signal that stopped it after saying what is `kept`."""
    try:
        work()
    except (KeyboardInterrupt, Stopped) as stop:
        print(f"stopped: {kept}; run the same command to go on", file=sys.stderr)
        return stop.exit_code if isinstance(stop, Stopped) else 130
    return 0


def with_options(settings: S, options: Mapping[str, Any]) -> S:
    """Validate `settings` with the options that were given in place of their values.

    Raises:
        BadInput: an option is out of range.
    """
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return type(settings).model_validate({**settings.model_dump(), **given})
    except ValidationError as error:
        raise BadInput(f"command line: {first_problem(error)}") from None


def probe(service: str, url: str) -> None:
    """Look whether anything answers at `url`; any HTTP answer will do.

    Raises:
        BadInput: nothing answers at `url`, or it is no URL.
    """
    try:
        with httpx.Client(timeout=_PROBE_SECONDS, trust_env=False) as http:
            http.get(url)
    except httpx.ReadTimeout:
        return  # somebody listens; how slow an answer may be is for the calls to judge
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise BadInput(f"{service} {url} is not reachable: {error or type(error).__name__}") from None


async def ask_each(
    questions: Iterable[Q], ask: Callable[[Q], Awaitable[A]], take: Callable[[A], None], *, at_once: int
) -> None:
    """Ask every question, `at_once` of them at a time, and `take` the answers in the order of the questions.

    SIGINT or SIGTERM: no further question is asked, those under way have some seconds to be answered, or until the
    next signal.

    Raises:
        Stopped: a signal came.
        Exception: what `ask` or `take` raised; no further question is asked then.
    """
    asking = _Asking(ask, asyncio.Semaphore(at_once), asyncio.get_running_loop().create_future())
    loop, signals = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, asking.on_signal, number)
    try:
        for question in questions:
            asking.begin(question)
            if len(asking.begun) >= _AHEAD:
                take(await asking.first())
        while asking.begun:
            take(await asking.first())
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
        await asking.give_up(asking.begun)


@dataclass
class _Asking(Generic[Q, A]):
    """`end` is done once no further question may be asked: `Stopped`, or what `ask` raised."""

    ask: Callable[[Q], Awaitable[A]]
    gate: asyncio.Semaphore
    end: asyncio.Future[Exception]
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    begun: deque[asyncio.Task[A]] = field(default_factory=deque)
    under_way: set[asyncio.Task[A]] = field(default_factory=set)

    def begin(self, question: Q) -> None:
        self.begun.append(asyncio.create_task(self._ask(question)))

    async def _ask(self, question: Q) -> A:
        async with self.gate:
            task = asyncio.current_task()
            assert task is not None
            self.under_way.add(task)
            try:
                return await self.ask(question)
            except Exception as problem:
                if not self.end.done():
                    self.end.set_result(problem)
                raise
            finally:
                self.under_way.discard(task)

    async def first(self) -> A:
        """Wait for the answer to the oldest question that is begun and not taken."""
        either: set[asyncio.Future[Any]] = {self.begun[0], self.end}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not self.end.done():
            return self.begun.popleft().result()
        if isinstance(self.end.result(), Stopped):
            await self._wind_down()
        raise self.end.result()

    async def _wind_down(self) -> None:
        await self.give_up(task for task in self.begun if task not in self.under_way)
        if not self.under_way:
            return
        print(f"stopping: waiting {_GRACE_SECONDS:g} s for {len(self.under_way)} calls under way", file=sys.stderr)
        answered = asyncio.gather(*self.under_way, return_exceptions=True)
        hurry = asyncio.create_task(self.hurry.wait())
        either: set[asyncio.Future[Any]] = {answered, hurry}
        await asyncio.wait(either, timeout=_GRACE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        answered.cancel()

    def on_signal(self, number: int) -> None:
        if self.end.done():
            self.hurry.set()
        else:
            self.end.set_result(Stopped(number))

    @staticmethod
    async def give_up(tasks: Iterable[asyncio.Task[A]]) -> None:
        given_up = list(tasks)
        for task in given_up:
            task.cancel()
        await asyncio.gather(*given_up, return_exceptions=True)


class AskingBar:
    """A bar on the terminal, or a line now and then where there is none (a log file). Use as a context manager."""

    def __init__(self, total: int, done: int = 0):
        console = Console(stderr=True)
        columns = (TextColumn("asking"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._bar = Progress(
            *columns,
            TextColumn("{task.fields[failed]} failed"),
            console=console,
            disable=not console.is_terminal,
            speed_estimate_period=300.0,
        )
        self._task = self._bar.add_task("", total=total, completed=done, failed=0)
        self._failed, self._next_line = 0, time.monotonic() + _LINE_SECONDS

    def advance(self, *, failed: bool) -> None:
        self._failed += failed
        self._bar.update(self._task, advance=1, failed=self._failed)
        if self._bar.disable and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _LINE_SECONDS
            task = self._bar.tasks[0]
            left = "unknown" if task.time_remaining is None else timedelta(seconds=round(task.time_remaining))
            line = f"asked {task.completed:.0f} of {task.total:.0f}, {self._failed} failed, time left {left}"
            print(line, file=sys.stderr, flush=True)

    def __enter__(self) -> AskingBar:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, traceback)
