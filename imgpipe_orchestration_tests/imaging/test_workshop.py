"""Workers that die, hang or grow: the image they had becomes an error, everything else goes on."""

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from imgpipe_orchestration.errors import BackendUnavailable, BadImage, ImageTooSlow, Retryable, TooLarge
from imgpipe_orchestration.imaging import limits, workshop
from imgpipe_orchestration.imaging.encoding.picture import Picture
from imgpipe_orchestration.imaging.reading.sniff import sniff
from imgpipe_orchestration.imaging.recipe import MEDIA, Recipe
from imgpipe_orchestration.imaging.render import render
from imgpipe_orchestration.imaging.workshop import Workshop
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.imaging.corpus import encoded, photo, picture


@pytest.fixture(scope="module")
def shop() -> Iterator[Workshop]:
    with closing(Workshop(2, memory_bytes=600_000_000, cpu_seconds=3, wall_seconds=60)) as opened:
        yield opened


def test_work_in_a_worker_gives_what_it_gives_here(shop: Workshop) -> None:
    data = encoded(picture(320, 240), "PNG")
    recipe = Recipe(sizes=MEDIA.sizes[:1])
    assert shop.call(render, data, recipe) == render(data, recipe)


def test_an_error_arrives_as_it_was_raised(shop: Workshop) -> None:
    with pytest.raises(BadImage, match="SVG is not accepted here"):
        shop.call(sniff, b"<svg/>")


def test_a_crash_costs_its_own_image_only(shop: Workshop) -> None:
    data = encoded(picture(64, 64), "PNG")
    futures = [shop.submit(sniff, data) if i != 3 else shop.submit(os.abort) for i in range(12)]
    for i, future in enumerate(futures):
        if i == 3:
            with pytest.raises(BadImage, match=r"crashed its decoder or encoder \(SIGABRT\)"):
                future.result()
        else:
            assert future.result().width == 64


def test_an_image_whose_worker_crashed_is_tried_in_another_one(shop: Workshop, tmp_path: Path) -> None:
    mark = tmp_path / "crashed"
    code = f"import os, pathlib\nmark = pathlib.Path({str(mark)!r})\nif not mark.exists(): mark.touch(), os.abort()"
    shop.call(exec, code)
    assert mark.exists()


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
def test_an_image_whose_workers_are_ended_by_others_is_not_to_blame(shop: Workshop, how: str) -> None:
    with pytest.raises(Retryable, match=rf"ended from outside, twice \({how}\)"):
        shop.call(exec, f"import os, signal; os.kill(os.getpid(), signal.{how})")


@pytest.mark.slow
def test_a_rendering_leaves_nothing_to_the_collector() -> None:
    """What waits for it adds up: a worker that had rendered thirty photos was at its limit and crashed."""
    data = encoded(photo("retina").resize((1500, 1000)), "JPEG")  # large enough for an excerpt
    gc.collect()
    gc.disable()
    try:
        render(data, MEDIA)
        left = [one for one in gc.get_objects() if isinstance(one, Picture)]
    finally:
        gc.enable()
    assert left == []


def test_a_loop_without_end_is_ended_by_its_cpu_time(shop: Workshop) -> None:
    with pytest.raises(BadImage, match="more than 3 s of CPU time"):
        shop.call(sum, range(10**15))


def test_a_wait_without_end_is_ended_by_the_clock() -> None:
    with closing(Workshop(1, wall_seconds=0.5)) as shop, pytest.raises(ImageTooSlow, match=r"longer than 0\.5 s"):
        shop.call(time.sleep, 60)
    with closing(Workshop(1)) as shop, pytest.raises(ImageTooSlow):  # by the worker's own clock, where the pool is late
        shop.call(signal.raise_signal, signal.SIGALRM)


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no limit on memory")
def test_memory_past_the_limit_is_an_error_and_the_worker_lives(shop: Workshop) -> None:
    with pytest.raises(TooLarge, match="more than 600 MB of memory"):
        shop.call(bytearray, 2_000_000_000)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such a score")
def test_where_memory_runs_out_the_kernel_ends_the_worker_before_its_run(shop: Workshop) -> None:
    assert int(shop.call(Path("/proc/self/oom_score_adj").read_text)) == workshop.IMAGE_WORKER > workshop.RUN


def test_a_future_that_is_cancelled_ends_its_work() -> None:
    with closing(Workshop(1)) as shop:
        future = shop.submit(time.sleep, 60)
        assert future.cancel()
        assert shop.submit(sniff, encoded(picture(64, 64), "PNG")).result(timeout=30).width == 64


def test_work_of_a_pool_that_broke_is_done_in_a_new_one() -> None:
    with closing(Workshop(1)) as shop:
        futures = [shop.submit(time.sleep, 0.5) for _ in range(6)]  # more than a pool takes at once
        broken = shop._pool
        assert broken is not None
        manager = broken._pool_manager
        wait_for(lambda: manager.task_manager.tasks, "the pool to take the work", 20)
        manager.handle_broken_pool(BrokenProcessPool("All workers expired"))
        assert [future.result(timeout=30) for future in futures] == [None] * 6
        assert shop._pool is not broken


def test_work_of_a_closed_workshop_says_that_it_was_stopped() -> None:
    with closing(Workshop(1)) as shop:
        assert shop.call(len, b"abc") == 3
        future = shop.submit(time.sleep, 60)
    with pytest.raises(BackendUnavailable, match="the image workers were stopped"):
        future.result(timeout=30)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_work_whose_workshop_is_closed_while_it_is_handed_over_does_not_wait(
    after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Workshop(1)) as shop:
        pool, _ = shop._started()
        hand_over = pool.schedule

        def closing_too(*args: Any, **options: Any) -> Any:
            if not after:
                shop.close()
            inner = hand_over(*args, **options)
            shop.close()
            return inner

        monkeypatch.setattr(pool, "schedule", closing_too)
        with pytest.raises(BackendUnavailable, match="the image workers were stopped"):
            shop.submit(time.sleep, 60).result(timeout=30)


def test_no_process_outlives_a_program_that_was_killed() -> None:
    program = (
        "import os, time\n"
        "from imgpipe_orchestration.imaging.workshop import Workshop\n"
        "shop = Workshop(1)\n"
        "print(shop.call(os.getpid), flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    worker = int(run.stdout)
    wait_for(lambda: not psutil.pid_exists(worker), "the worker to end", 20)


def test_a_worker_imports_nothing_that_its_work_does_not_need() -> None:
    """The database's libraries cost each worker most of a second: three workers a run, and many runs in the tests."""
    services = Services(Settings())
    imports = "import sys, imgpipe_orchestration.listings.steps, imgpipe_orchestration.imaging.measuring"
    services.workshop.call(exec, f"{imports}\nassert not {{'sqlalchemy', 'pydantic'}} & {{*sys.modules}}")
    services.close()


@pytest.mark.slow
@pytest.mark.parametrize("format", ["JPEG", "AVIF"])
def test_a_photo_of_100_megapixels_is_decoded_and_rendered_within_a_workers_limits(format: str) -> None:
    limits.allow(megapixels=100)
    quickly = {"speed": 10} if format == "AVIF" else {}
    data = encoded(picture(60, 40).resize((11_547, 8_660)), format, quality=60, **quickly)
    assert sniff(data).width == 11_547
    with closing(Workshop(1, prepare=partial(limits.allow, megapixels=100))) as shop:
        made = shop.call(render, data, Recipe(sizes=MEDIA.sizes[:1]))
    assert made.variants
