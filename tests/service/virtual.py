"""Time that is not waited for, and processes that can be killed, in one event loop.

`run` runs a coroutine on a loop whose clock jumps to whatever is due next. What is handed to a thread is done
in the loop: at once, or within a `Process`, after a pause of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
_TURNS = 1_000_000  # of a loop, in one run: whoever needs more waits busily


class _Idle(selectors.SelectSelector):
    """Waits for nothing: moves the clock instead."""

    now = 0.0
    turns = 0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everybody waits for ever"
        self.turns += 1
        assert self.turns < _TURNS, f"the loop turns and turns, at {self.now:.3f} s"
        self.now += max(0.0, timeout)
        return []  # nothing comes from outside


class Process:
    """What is killed together: tasks, those that they start, and what these hand to threads.

    A step is whatever a process can be killed before: work in a thread, the end of that, and what its owner
    calls `step` for. Afterwards nothing of it runs but what a cancelled task does on its way out, and that
    finds its files closed.

    Args:
        dies_at: which step it is killed before; None: it is not.
        close: takes its files from it.
        pause: seconds until a thread begins, and until its result is noticed; 0: at once.
    """

    def __init__(
        self,
        name: str,
        *,
        dies_at: int | None = None,
        close: Callable[[], None] = lambda: None,
        pause: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.name = name
        self.dies_at = dies_at
        self.close = close
        self.pause = pause
        self.steps = 0
        self.dead = False
        self.died = asyncio.Event()
        self._tasks: dict[asyncio.Task[Any], None] = {}  # in the order in which they began

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        context = contextvars.copy_context()
        context.run(_PROCESS.set, self)
        return asyncio.get_running_loop().create_task(work, context=context)

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.dies_at:
            self.kill()

    def kill(self) -> None:
        """As by SIGKILL; from anywhere, also from within."""
        if not self.dead:
            self.dead = True
            self.close()
            self.died.set()
            for task in list(self._tasks):
                task.cancel()

    def own(self, task: asyncio.Task[Any]) -> None:
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        if self.dead:
            task.cancel()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        del self._tasks[task]
        if self.dead and not task.cancelled():
            task.exception()  # nobody is left to look at it


_PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, without threads."""

    def __init__(self) -> None:
        self._idle = _Idle()
        super().__init__(self._idle)

    def time(self) -> float:
        return self._idle.now

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> asyncio.Task[Any]:
        task = super().create_task(coro, name=name, context=context)
        process = context[_PROCESS] if context and _PROCESS in context else _PROCESS.get()
        if process is not None:
            process.own(task)
        return task

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        future = self.create_future()
        process = _PROCESS.get()

        def begin() -> None:
            """Also if whoever waited is gone: a thread cannot be called back."""
            if process is not None:
                process.step()
                if process.dead:
                    return
            try:
                result, failed = func(*args), None
            except Exception as error:
                result, failed = None, error
            self._after(process, end, result, failed)

        def end(result: Any, failed: Exception | None) -> None:
            if process is not None:
                process.step()
            if future.done():
                return
            if failed is None:
                future.set_result(result)
            else:
                future.set_exception(failed)

        if process is not None and process.dead:
            future.cancel()
        else:
            self._after(process, begin)
        return future

    def _after(self, process: Process | None, call: Callable[..., None], *args: Any) -> None:
        if process is not None and (seconds := process.pause()):
            self.call_later(seconds, call, *args)
        else:
            call(*args)


def run(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def now() -> float:
    return asyncio.get_running_loop().time()
