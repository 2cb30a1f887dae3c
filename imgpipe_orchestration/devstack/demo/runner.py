"""Finds the scenarios, feeds them together and watches them to their ends."""

from __future__ import annotations

import importlib
import pkgutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import requests

from imgpipe_orchestration.devstack import demo
from imgpipe_orchestration.devstack.demo.scenario import Exhibit, Refusal, Scenario, Stack
from imgpipe_orchestration.errors import ImgpipeError

_LOOK_SECONDS = 0.5
_RUNS_SECONDS = 30
_RUNS_UNDER_WAY = """{ runsOrError(filter: {statuses: [QUEUED, NOT_STARTED, STARTING, STARTED, CANCELING]}, limit: 1) {
    ... on Runs { results { runId } } } }"""


@dataclass
class Result:
    """One line of the demo's table."""

    pipeline: str
    items: int = 0
    arrived: int = 0
    seconds: float = 0.0
    """From the first request to the last arrival."""
    waiting_for: str = ""
    failures: list[str] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    """On purpose, to show what a refusal looks like."""
    links: list[str] = field(default_factory=list)
    exhibits: list[Exhibit] = field(default_factory=list)
    finished: bool = False

    @property
    def failed(self) -> int:
        """Items that failed, as `imgpipe status` counts them: those that were refused on purpose are among them."""
        return len(self.failures) + sum(refusal.failed for refusal in self.refused)

    @property
    def ok(self) -> bool:
        return self.finished and not self.failures and self.items > 0 and self.arrived == self.items


def scenarios(only: Sequence[str] = ()) -> list[type[Scenario]]:
    """Every scenario there is, or those of the pipelines in `only`."""
    names = sorted(module.name for module in pkgutil.iter_modules(demo.__path__))
    modules = [importlib.import_module(f"{demo.__name__}.{name}") for name in names]
    found: list[type[Scenario]] = [module.SCENARIO for module in modules if hasattr(module, "SCENARIO")]
    return [scenario for scenario in found if not only or scenario.pipeline in only]


def run(stack: Stack, kinds: Sequence[type[Scenario]], on_change: Callable[[Result], None]) -> list[Result]:
    """Feed all, then look at each twice a second until it has everything, has failed or is out of time."""
    running: list[tuple[Scenario, Result, float]] = []
    results = [Result(kind.pipeline, kind.items) for kind in kinds]
    for kind, result in zip(kinds, results, strict=True):
        began = time.monotonic()
        scenario = kind(stack)
        try:
            scenario.feed()
        except (ImgpipeError, requests.RequestException) as error:
            result.failures.append(f"could not be fed: {_reason(error)}")
            result.finished = True
            scenario.close()
        else:
            running.append((scenario, result, began))
        on_change(result)
    while running:
        running = [entry for entry in running if not _look(*entry, on_change)]
        time.sleep(_LOOK_SECONDS if running else 0)
    return results


def let_runs_end(stack: Stack) -> None:
    """Wait until no Dagster run is under way, half a minute at most.

    A run ends shortly after its last result; one that is stopped in between is shown as failed in the UI.
    """
    deadline = time.monotonic() + _RUNS_SECONDS
    while time.monotonic() < deadline:
        try:
            answer = stack.request("POST", stack.dagster("/graphql"), json={"query": _RUNS_UNDER_WAY})
            if not answer.json()["data"]["runsOrError"].get("results"):
                return
        except requests.RequestException:
            return  # no Dagster, nobody to wait for
        time.sleep(_LOOK_SECONDS)


def _look(scenario: Scenario, result: Result, began: float, on_change: Callable[[Result], None]) -> bool:
    """Whether the scenario is over."""
    try:
        progress = scenario.look()
    except (ImgpipeError, requests.RequestException) as error:
        # The part may be restarting, so this is no failure yet; the time limit decides.
        result.waiting_for = _reason(error)
    else:
        result.arrived, result.waiting_for = max(result.arrived, progress.done), progress.waiting_for
        result.failures, result.refused = progress.failures, scenario.refused()
    result.seconds = time.monotonic() - began
    late = result.seconds > scenario.seconds
    result.finished = result.arrived + len(result.failures) >= result.items or late
    if late and result.arrived < result.items:
        result.failures.append(f"gave up after {scenario.seconds:g} s waiting for {result.waiting_for}")
    if result.finished:
        result.links = scenario.links()
        try:
            result.exhibits = scenario.exhibits()
        except (ImgpipeError, requests.RequestException) as error:
            result.exhibits = [Exhibit(f"What came out could not be read: {_reason(error)}")]
        scenario.close()
    on_change(result)
    return result.finished


def _reason(error: Exception) -> str:
    if isinstance(error, ImgpipeError):
        return f"{error.public} {error.detail or ''}".strip()
    return f"{type(error).__name__}: {error}"
