"""The jobs of vision reports: what is due, a backfill of days, and the batches of our own analysis backend."""

import re
from collections import Counter
from collections.abc import Collection, Iterator
from datetime import date
from typing import TYPE_CHECKING

import dagster as dg

from imgpipe_orchestration.assets import day_of
from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration.runs.threads import threads_executor
from imgpipe_orchestration.runs.worker_queues import PAID
from imgpipe_orchestration.sensors import owner_of
from imgpipe_orchestration.vision_reports.assets import ANALYSES, DAYS, REPORTS
from imgpipe_orchestration.vision_reports.model import AT_ONCE
from imgpipe_orchestration.vision_reports.resources import VisionCrewResource

if TYPE_CHECKING:
    from imgpipe_orchestration.services import Services
    from imgpipe_orchestration.storage.claims import Claim
    from imgpipe_orchestration.vision_reports.crew import Crew
    from imgpipe_orchestration.vision_reports.runs import Taken

POOL = "vision_reports"
SIDE_BY_SIDE = threads_executor.configured({"max_concurrent": AT_ONCE + 1}, name="side_by_side")
"""A thread for each analysis, which mostly waits, and one for the latecomers. The crew limits how many work at once."""

PROMPT = 5.0
"""Seconds that a run waits for lists before it begins with what it has."""

CHECK = "If it stays so, look whether that host is up and lets this machine in, and at the job's addresses and token."


@dg.op(
    out={
        "analysis": dg.DynamicOut(dg.Nothing, description="An analysis: the number of its row ends the key."),
        "begun": dg.Out(dg.Nothing, description="The run is at work."),
    },
    description="Turns due cron jobs into executions, lists what the external APIs have unprocessed, and takes it on.",
)
def unprocessed_analyses(
    context: dg.OpExecutionContext, backends: BackendsResource, vision_crew: VisionCrewResource
) -> Iterator[dg.DynamicOutput[None] | dg.Output[None]]:
    from imgpipe_orchestration.vision_reports import analyses, runs

    services = backends.services
    owner = owner_of(services, context.run)
    crew = vision_crew.crew(services, owner)
    crew.lists.look()
    crew.lists.wait(PROMPT)
    given_up = _tell(context, crew)
    held = services.claims.owned(analyses.QUEUE, owner)
    taken = runs.take(services, owner, AT_ONCE - len(held), also=held)
    yield from _take_on(context, services, vision_crew, taken, "analysis")
    if given_up and not taken and not crew.lists.at_work:
        raise dg.Failure(f"Given up. {'. '.join(given_up)}. {CHECK}", allow_retries=False)
    yield dg.Output(None, "begun")


def _tell(context: dg.OpExecutionContext, crew: "Crew") -> list[str]:
    """Tell which executions could not be listed; returns those that were given up."""
    told = crew.lists.told()
    for problem in told.waiting:
        context.log.warning(f"{problem}. {CHECK}")
    for problem in told.given_up:
        context.log.error(f"Given up. {problem}. {CHECK}")
    if told.waiting or told.given_up:
        not_listed = {"waiting": told.waiting, "given_up": told.given_up}
        context.log_event(dg.AssetObservation(ANALYSES, metadata=not_listed))
    return told.given_up


@dg.op(
    ins={"begun": dg.In(dg.Nothing)},
    description="What becomes due while the run is at work: lists that come slowly, other executions, their analyses.",
)
def latecomers(context: dg.OpExecutionContext, backends: BackendsResource, vision_crew: VisionCrewResource) -> None:
    from imgpipe_orchestration.vision_reports import runs
    from imgpipe_orchestration.vision_reports.crew import End

    services = backends.services
    owner = owner_of(services, context.run)
    crew = vision_crew.crew(services, owner)
    names: dict[int, str] = {}
    given_up: list[str] = []

    def take(most: int, but: Collection[str]) -> "list[Claim]":
        given_up.extend(_tell(context, crew))
        taken = runs.take(services, owner, most, but=but)
        names.update({one.claim.item_id: one.name for one in taken})
        return [one.claim for one in taken]

    ended: Counter[End] = Counter()
    for one in crew.latecomers(take):
        told = f"{names[one.item_id]}: {one.end}{f': {one.reason}' if one.reason else ''}"
        ended[one.end] += 1
        if one.end is End.FAILED:
            given_up.append(told)
        say = context.log.info if one.end not in {End.RETRY, End.FAILED} else context.log.warning
        say(told)
    given_up.extend(_tell(context, crew))
    context.add_output_metadata({end.value: number for end, number in ended.items()} or {"latecomers": 0})
    _summarise(context, services, list(names))
    if given_up:
        raise dg.Failure(f"Given up. {'. '.join(given_up)}", allow_retries=False)


@dg.op(
    out=dg.DynamicOut(dg.Nothing, description="An analysis: the number of its row ends the key."),
    description="Starts every analysis that was created on the partition's day from the beginning.",
)
def analyses_of_day(
    context: dg.OpExecutionContext, backends: BackendsResource, vision_crew: VisionCrewResource
) -> Iterator[dg.DynamicOutput[None]]:
    from imgpipe_orchestration.vision_reports import analyses, runs

    services = backends.services
    owner = owner_of(services, context.run)
    day = date.fromisoformat(day_of(context, DAYS))
    opened = analyses.reopen_day(services.engine, services.claims, day, owner)
    context.log.info(f"{len(opened)} analyses of {day} from the start again")
    held = services.claims.owned(analyses.QUEUE, owner)
    held += services.claims.claim_these(analyses.QUEUE, owner, opened)
    yield from _take_on(context, services, vision_crew, runs.described(services, held, owner), "result")


def _take_on(
    context: dg.OpExecutionContext, services: "Services", crew: VisionCrewResource, taken: "list[Taken]", output: str
) -> Iterator[dg.DynamicOutput[None]]:
    context.log.info(f"{len(taken)} analyses of {len({one.organization_id for one in taken})} organizations")
    crew.crew(services, owner_of(services, context.run)).expect(one.claim.item_id for one in taken)
    for one in taken:
        # Only the key is passed on: Dagster keeps values in files of this machine, and a step that is re-executed may
        # run on another one.
        key = re.sub(r"[^A-Za-z0-9_]", "_", f"{one.name}_{one.claim.item_id}")
        yield dg.DynamicOutput(None, mapping_key=key, output_name=output)


@dg.op(
    pool=POOL,
    ins={"analysis": dg.In(dg.Nothing)},
    description="One analysis: images to a backend, the batch awaited, its report uploaded. Red once given up.",
)
def report(context: dg.OpExecutionContext, backends: BackendsResource, vision_crew: VisionCrewResource) -> None:
    from imgpipe_orchestration.vision_reports import analyses
    from imgpipe_orchestration.vision_reports.crew import End, Ended

    services = backends.services
    owner = owner_of(services, context.run)
    crew = vision_crew.crew(services, owner)
    analysis = int((context.get_mapping_key() or "").rpartition("_")[2])
    claim = analyses.take(services.claims, owner, analysis)
    gone = Ended(analysis, End.LOST, "it is delivered, or another run works on it")
    ended = crew.work(claim) if claim else gone
    context.add_output_metadata({"state": ended.end.value, "reason": ended.reason or "none"})
    if everything := crew.ended(analysis):
        _summarise(context, services, everything)
    if ended.end is End.FAILED:
        raise dg.Failure(f"Given up: {ended.reason}", allow_retries=False)
    say = context.log.warning if ended.end is End.RETRY else context.log.info
    say(f"{ended.end}{f': {ended.reason}' if ended.reason else ''}")


def _summarise(context: dg.OpExecutionContext, services: "Services", ended: list[int]) -> None:
    """The run's totals by day: a line in its log, and a materialization, or an observation where no report came. They
    lead to the page of the reports."""
    from imgpipe_orchestration.vision_reports import runs

    page = dg.MetadataValue.url(f"{services.settings.public_base_url}/vision-reports")
    for day, totals in runs.summary(services, ended).items():
        words = ", ".join(f"{number} {name}" for name, number in totals.items())
        context.log.info(f"Summary of {day}: {words}")
        event = dg.AssetMaterialization if totals["successful"] else dg.AssetObservation
        context.log_event(event(asset_key=REPORTS, partition=day, metadata={**totals, "reports": page}))


@dg.job(
    description="Everything that is due: cron jobs whose time has come, and analyses that wait for their next step.",
    tags={"pipeline": "vision_reports", "group": "vision_reports", **PAID},
    executor_def=SIDE_BY_SIDE,
)
def vision_reports() -> None:
    found = unprocessed_analyses()
    found.analysis.map(report)
    latecomers(found.begun)


@dg.job(
    description="All analyses created on the chosen days once more, from their documents to a new upload.",
    tags={"pipeline": "vision_reports_backfill", "group": "vision_reports", **PAID},
    partitions_def=DAYS,
    executor_def=SIDE_BY_SIDE,
)
def vision_reports_backfill() -> None:
    analyses_of_day().map(report)


@dg.op(description="Shows the images of every due batch to the vision model and writes the reports.")
def due_batches(context: dg.OpExecutionContext, backends: BackendsResource) -> None:
    from imgpipe_orchestration.vision_reports.batch_work import work_on_all

    count = work_on_all(backends.services, owner_of(backends.services, context.run))
    context.add_output_metadata({"batches": count})
    context.log.info(f"{count} batches worked on")


@dg.job(
    description="Batches that came in over the gateway's analysis backend.",
    tags={"pipeline": "vision_batches", "group": "vision_reports", **PAID},
)
def vision_batches() -> None:
    due_batches()
