"""Feeds the scenarios together and watches them to their ends."""

import time
from collections.abc import Callable, Iterator, Sequence

import requests

from imgpipe_orchestration.devstack.demo.auto_marker import auto_marker
from imgpipe_orchestration.devstack.demo.avatars import avatars
from imgpipe_orchestration.devstack.demo.listings import listings
from imgpipe_orchestration.devstack.demo.media import media
from imgpipe_orchestration.devstack.demo.scenario import SECONDS, Result, Stack
from imgpipe_orchestration.devstack.demo.vision_reports import vision_reports
from imgpipe_orchestration.errors import ImgpipeError

SCENARIOS: dict[str, Callable[[Stack, Result], Iterator[None]]] = {
    "auto_marker": auto_marker,
    "avatars": avatars,
    "listings": listings,
    "media": media,
    "vision_reports": vision_reports,
}
"""By pipeline."""
_LOOK_SECONDS = 0.5


def run(stack: Stack, pipelines: Sequence[str], on_change: Callable[[Result], None]) -> list[Result]:
    """Feed all, then look at each twice a second until it has everything, has failed or is out of time."""
    results = [Result(pipeline) for pipeline in pipelines]
    running = [(SCENARIOS[result.pipeline](stack, result), result) for result in results]
    while running:
        for scenario, result in running:
            _advance(scenario, result)
            on_change(result)
        running = [(scenario, result) for scenario, result in running if not result.finished]
        time.sleep(_LOOK_SECONDS)
    return results


def _advance(scenario: Iterator[None], result: Result) -> None:
    try:
        next(scenario)
    except StopIteration:
        result.finished = True
        if result.arrived + len(result.failures) < result.items:
            result.failures.append(f"gave up after {SECONDS} s waiting for {result.waiting_for}")
    except ImgpipeError as error:
        result.finished = True
        result.failures.append(f"{error.public} {error.detail or ''}".strip())
    except requests.RequestException as error:
        result.finished = True
        result.failures.append(f"{type(error).__name__}: {error}")
    result.seconds = time.monotonic() - result.began
