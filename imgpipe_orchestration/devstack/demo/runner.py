"""Feeds the scenarios together and watches them to their ends."""

import time
from collections.abc import Callable, Sequence

import requests

from imgpipe_orchestration.devstack.demo.auto_marker import AutoMarkerScenario
from imgpipe_orchestration.devstack.demo.avatars import AvatarsScenario
from imgpipe_orchestration.devstack.demo.listings import ListingsScenario
from imgpipe_orchestration.devstack.demo.media import MediaScenario
from imgpipe_orchestration.devstack.demo.scenario import Exhibit, Result, Scenario, Stack
from imgpipe_orchestration.devstack.demo.vision_reports import VisionReportsScenario
from imgpipe_orchestration.errors import ImgpipeError

SCENARIOS: tuple[type[Scenario], ...] = (
    AutoMarkerScenario,
    AvatarsScenario,
    ListingsScenario,
    MediaScenario,
    VisionReportsScenario,
)
_LOOK_SECONDS = 0.5


def run(stack: Stack, kinds: Sequence[type[Scenario]], on_change: Callable[[Result], None]) -> list[Result]:
    """Feed all, then look at each twice a second until it has everything, has failed or is out of time."""
    running = [(kind(stack), time.monotonic()) for kind in kinds]
    results = [scenario.result for scenario, _ in running]
    for scenario, _ in running:
        try:
            scenario.feed()
        except (ImgpipeError, requests.RequestException) as error:
            scenario.result.failures.append(f"could not be fed: {_reason(error)}")
            scenario.result.finished = True
        on_change(scenario.result)
    while running := [(scenario, began) for scenario, began in running if not scenario.result.finished]:
        for scenario, began in running:
            _look(scenario, began)
            on_change(scenario.result)
        time.sleep(_LOOK_SECONDS)
    return results


def _look(scenario: Scenario, began: float) -> None:
    result = scenario.result
    try:
        scenario.look()
    except (ImgpipeError, requests.RequestException) as error:
        # The part may be restarting, so this is no failure yet; the time limit decides.
        result.waiting_for = _reason(error)
    result.seconds = time.monotonic() - began
    late = result.seconds > scenario.seconds
    result.finished = result.arrived + len(result.failures) >= result.items or late
    if late and result.arrived < result.items:
        result.failures.append(f"gave up after {scenario.seconds:g} s waiting for {result.waiting_for}")
    if result.finished:
        try:
            result.exhibits = scenario.show()
        except (ImgpipeError, requests.RequestException) as error:
            result.exhibits = [Exhibit(f"What came out could not be read: {_reason(error)}")]


def _reason(error: Exception) -> str:
    if isinstance(error, ImgpipeError):
        return f"{error.public} {error.detail or ''}".strip()
    return f"{type(error).__name__}: {error}"
