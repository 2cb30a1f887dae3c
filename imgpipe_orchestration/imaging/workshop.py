"""Image work in worker processes, so that a hostile file costs only itself.

Decoders are large C libraries that read what strangers send. A crash, a failed allocation or an endless loop in one of
them takes down its process. Here that process is a worker, and its image becomes a `BadImage`; the batch and the
process that runs it go on. Memory is limited for each worker, and CPU and wall time for each call.

    with closing(Workshop(workers=2)) as shop:
        futures = [shop.submit(render, data, MEDIA) for data in originals]

Any picklable function works.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import pickle
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

from imgpipe_orchestration.errors import BackendUnavailable, BadImage, ImageTooSlow, ImgpipeError, Retryable, TooLarge
from imgpipe_orchestration.imaging import limits

if TYPE_CHECKING:
    from pebble import ProcessPool

P = ParamSpec("P")
T = TypeVar("T")

_PLUGINS = ("Avif", "Bmp", "Gif", "Mpo", "Png", "Ppm", "Tiff", "WebP")
_PRELOADED = (
    "__main__",
    "pebble",
    "pyvips",
    "numpy.ma",
    *(f"PIL.{name}ImagePlugin" for name in _PLUGINS),
    "imgpipe_orchestration.imaging.render",
    "imgpipe_orchestration.imaging.measuring",
)
"""Imported once by the fork server, so that a new worker costs milliseconds. `__main__` is among them because otherwise
every worker would run the caller's main module again (before Python 3.12.8 it does); the plugins because Pillow loads
all forty that it has when it meets a format whose plugin is not loaded; numpy.ma because its first median loads it."""

RUN, IMAGE_WORKER = 500, 1000
"""Added to the thousandths of memory in use by which Linux chooses what to end where memory runs out (proc(5),
oom_score_adj): else it takes the largest process, which may be a database, the gateway or Dagster. What ours did not
finish is tried again. A run outlives its image workers, of which only one image suffers."""

_CRASHES = 2
"""Crashed workers after which an image is to blame; the first may have been damaged by the images before it."""

_FROM_OUTSIDE = {-signal.SIGKILL: "SIGKILL", int(signal.SIGTERM): "SIGTERM"}
"""Exit codes of workers that were ended by a person, or by a kernel short of memory. (At a SIGTERM pebble's workers
exit by themselves, with its number.) No codec does that to itself."""

_GRACE = 5.0
"""Seconds past the wall time after which a worker ends itself, in case its pool is gone and cannot."""


class Workshop:
    """A pool of worker processes for image work. Thread-safe; starts its workers at the first `submit`.

    Args:
        workers: processes, i.e. images worked on at once.
        memory_bytes: what one worker may allocate beyond its start (Linux; macOS has no such limit).
        cpu_seconds: CPU time one call may take.
        wall_seconds: time one call may take; past it the worker is ended. More than its CPU time, which an endless
            loop meets first; past this one the call may be tried again.
        prepare: called once in each worker, e.g. to set up its log; picklable.
        preload: modules that `prepare` needs; the fork server imports them once for all workers.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        memory_bytes: int = 3 * 1024**3 // 2,
        cpu_seconds: float = 120,
        wall_seconds: float = 180,
        prepare: Callable[[], object] | None = None,
        preload: Sequence[str] = (),
    ) -> None:
        self.workers = workers or os.cpu_count() or 1
        self.memory_bytes = memory_bytes
        self.cpu_seconds = cpu_seconds
        self.wall_seconds = wall_seconds
        self._prepare = prepare
        self._preload = preload
        self._pool: ProcessPool | None = None
        self._starting = Lock()
        self._begun: set[Future[object]] = set()
        """What the pool has not ended yet."""

    def start(self) -> None:
        """Start the workers without waiting: importing the codecs takes them half a second."""
        self._started()[0].schedule(int)

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `function` in a worker.

        Returns:
            A future that raises what the function raised; `BadImage` when two workers died over it or one ran out of
            CPU time, `ImageTooSlow` when one ran out of wall time, `TooLarge` when it ran out of memory, `Retryable`
            when somebody ended the two, and `BackendUnavailable` when no worker could be started or the workshop was
            closed. Cancelling it ends it.
        """
        # Pickled here and unpickled by `_bounded`, so that failing to unpickle is this call's error. Left to the pool,
        # it would end one worker after the other, and then the pool.
        packed = pickle.dumps((function, args, kwargs), pickle.HIGHEST_PROTOCOL)
        outer: Future[T] = Future()
        self._schedule(outer, packed, crashes_left=_CRASHES - 1)
        return outer

    def _schedule(self, outer: Future[T], packed: bytes, *, crashes_left: int) -> None:
        pool, begun = self._started()
        given = (self.cpu_seconds, self.wall_seconds, packed)
        try:
            inner = pool.schedule(_bounded, args=given, timeout=self.wall_seconds)
        except RuntimeError:  # since `_started` the pool was closed, or broke
            outer.set_exception(BackendUnavailable("the image workers were stopped"))
            return
        begun.add(inner)
        inner.add_done_callback(begun.discard)
        outer.add_done_callback(lambda done: inner.cancel() if done.cancelled() else None)
        inner.add_done_callback(functools.partial(self._hand_over, outer, packed, crashes_left, begun))
        if self._pool is not pool:  # closed before `begun` had this one, which it would have left waiting
            inner.cancel()

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`submit` and wait."""
        return self.submit(function, *args, **kwargs).result()

    def close(self) -> None:
        """End the workers. Work in progress fails with BackendUnavailable."""
        with self._starting:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()
            pool.join()
            _end(self._begun)

    def _started(self) -> tuple[ProcessPool, set[Future[object]]]:
        """A pool that works, and what it has not ended yet."""
        from pebble import ProcessPool

        with self._starting:
            if self._pool is None or not self._pool.active:
                context = multiprocessing.get_context("forkserver")
                context.set_forkserver_preload([*_PRELOADED, *self._preload])
                self._pool = ProcessPool(
                    max_workers=self.workers,
                    max_tasks=1000,  # then a worker is replaced, so that nothing a codec leaks can add up
                    initializer=_begin,
                    initargs=(self.memory_bytes, self._prepare),
                    context=context,
                )
                self._begun = set()
            return self._pool, self._begun

    def _hand_over(
        self, outer: Future[T], packed: bytes, crashes_left: int, begun: set[Future[object]], inner: Future[object]
    ) -> None:
        """Pass a result on; a worker's death becomes an error in words for the uploader."""
        if outer.cancelled():
            return
        error = BrokenProcessPool() if inner.cancelled() else inner.exception()
        if isinstance(error, BrokenProcessPool):
            _end(begun)
        has_crashed = getattr(error, "exitcode", None) not in {None, -signal.SIGPROF, -signal.SIGALRM}
        # A worker that dies the moment it takes its work may break pebble's whole pool, with all that is in it.
        if crashes_left and self._pool is not None and (has_crashed or isinstance(error, BrokenProcessPool)):
            self._schedule(outer, packed, crashes_left=crashes_left - 1)
            return
        if not outer.set_running_or_notify_cancel():
            return
        if error is None:
            outer.set_result(cast("T", inner.result()))
        else:
            outer.set_exception(self._explained(error))

    def _explained(self, error: BaseException) -> BaseException:
        match error:
            case ImgpipeError():
                return error
            case TimeoutError():
                return self._too_slow()
            case MemoryError():
                return TooLarge(f"the image needs more than {self.memory_bytes / 1e6:,.0f} MB of memory")
            case BrokenProcessPool() if self._pool is None:
                return BackendUnavailable("the image workers were stopped")
            case BrokenProcessPool():
                return BackendUnavailable(f"the image workers could not be started: {error}")
        code = getattr(error, "exitcode", None)
        return error if code is None else self._of_death(code, str(error))

    def _too_slow(self) -> ImageTooSlow:
        return ImageTooSlow(f"the image took longer than {self.wall_seconds:g} s")

    def _of_death(self, code: int, detail: str) -> BadImage | Retryable:
        """What a worker's exit code (a signal's number, negated) says about its image."""
        if code == -signal.SIGALRM:
            return self._too_slow()
        if code == -signal.SIGPROF:
            return BadImage(f"the image took more than {self.cpu_seconds:g} s of CPU time and was given up")
        if code in _FROM_OUTSIDE:
            return Retryable(f"the image's worker was ended from outside, twice ({_FROM_OUTSIDE[code]})", detail=detail)
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return BadImage(f"the image crashed its decoder or encoder ({name})", detail=detail)


def _end(begun: set[Future[object]]) -> None:
    """End what a pool that stops or breaks has not ended: what no worker had taken yet it would leave waiting."""
    for inner in list(begun):
        inner.cancel()


def prepared(log: Callable[[], object], megapixels: float) -> None:
    """Set up a worker: its log and its limit of pixels. In this module, which a worker has anyway: the imports of
    another one would cost each worker up to a second."""
    log()
    limits.allow(megapixels=megapixels)


def volunteer(score: int) -> None:
    """Have the kernel end this process, and what it starts from now on, before those with a lower score."""
    with contextlib.suppress(OSError):  # there is no such file on macOS
        file = Path("/proc/self/oom_score_adj")
        file.write_text(str(max(score, int(file.read_text()))))


def _begin(memory_bytes: int, prepare: Callable[[], object] | None) -> None:
    """Runs once in each worker."""
    if prepare is not None:
        prepare()
    volunteer(IMAGE_WORKER)
    if sys.platform != "linux":
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    # A crash here is an expected event and not worth a core file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _bounded(cpu_seconds: float, wall_seconds: float, packed: bytes) -> object:
    """Run the function in a worker, within its CPU time; past it a signal ends the worker, even in C code.

    The pool ends a worker past its wall time; the wall timer here is for a worker whose pool was killed.
    """
    function, args, kwargs = pickle.loads(packed)  # noqa: S301 - packed by `submit`, in the parent process
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    signal.setitimer(signal.ITIMER_REAL, wall_seconds + _GRACE)
    try:
        return function(*args, **kwargs)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
