"""The jobs of vision reports: what is due, a backfill of days, and the batches of our own analysis backend."""

from collections.abc import Collection
from datetime import date
from typing import TYPE_CHECKING

import dagster as dg

from imgpipe_orchestration.dagster_side.assets import day_of
from imgpipe_orchestration.dagster_side.run_tags import PAID, run_tags
from imgpipe_orchestration.dagster_side.sensors import owner_of
from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration.vision_reports.assets import ANALYSES, DAYS, REPORTS

if TYPE_CHECKING:
    from imgpipe_orchestration.billing.tally import Tally
    from imgpipe_orchestration.services import Services
    from imgpipe_orchestration.storage.claims import Claim
    from imgpipe_orchestration.storage.work import Outcome
    from imgpipe_orchestration.vision_reports.crew import Crew

POOL = "vision_reports"
CHECK = "If it stays so, look whether that host is up and lets this machine in, and at the job's addresses and token."


@dg.op(
    pool=POOL,
    description=(
        "Turns due cron jobs into executions, lists what the external APIs have unprocessed, and delivers a report for"
        " each analysis: images to a backend, the batch awaited, its report uploaded. Red if one was given up."
    ),
)
def due_reports(context: dg.OpExecutionContext, backends: BackendsResource) -> None:
    from imgpipe_orchestration.billing.tally import tallied
    from imgpipe_orchestration.vision_reports import analyses, runs

    services = backends.services
    owner = owner_of(services, context.run)
    given_up: list[str] = []
    with tallied() as paid, runs.crew_of(services, owner) as crew:

        def take(most: int, but: Collection[str] = ()) -> "list[Claim]":
            given_up.extend(_not_listed(context, crew))
            return runs.take(services, owner, most, but=but)

        outcome = crew.deliver(services.claims.owned(analyses.QUEUE, owner), take)
        given_up += _not_listed(context, crew)
    _end(context, services, crew, outcome, given_up, paid)


@dg.op(pool=POOL, description="Delivers a new report for every analysis that was created on the partition's day.")
def reports_of_day(context: dg.OpExecutionContext, backends: BackendsResource) -> None:
    from imgpipe_orchestration.billing.tally import tallied
    from imgpipe_orchestration.vision_reports import analyses, runs

    services = backends.services
    owner = owner_of(services, context.run)
    day = date.fromisoformat(day_of(context, DAYS))
    opened = analyses.reopen_day(services.engine, services.claims, day, owner)
    context.log.info(f"{len(opened)} analyses of {day} from the start again")
    held = services.claims.owned(analyses.QUEUE, owner)
    held += services.claims.claim_these(analyses.QUEUE, owner, opened)
    runs.note(services, owner, held)
    with tallied() as paid, runs.crew_of(services, owner) as crew:
        outcome = crew.deliver(held)
    _end(context, services, crew, outcome, [], paid)


def _not_listed(context: dg.OpExecutionContext, crew: "Crew") -> list[str]:
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


def _end(
    context: dg.OpExecutionContext,
    services: "Services",
    crew: "Crew",
    outcome: "Outcome",
    not_listed: list[str],
    paid: "Tally",
) -> None:
    """Tell how each analysis ended, and the run's totals by day: a materialization, or an observation where no report
    came. They lead to the page of the reports, and have what the whole run paid.

    Raises:
        Failure: a list or an analysis was given up.
    """
    from imgpipe_orchestration.vision_reports import runs

    names = runs.names(services, runs.ids(outcome))
    problems = [f"{names[item]}: {told}" for item, told in runs.problems(services, outcome, crew.waiting).items()]
    for problem in problems:
        context.log.warning(problem)
    page = dg.MetadataValue.url(f"{services.settings.public_base_url}/vision-reports")
    for day, totals in runs.summary(services, list(names)).items():
        words = ", ".join(f"{number} {name}" for name, number in totals.items())
        context.log.info(f"Summary of {day}: {words}")
        event = dg.AssetMaterialization if totals["successful"] else dg.AssetObservation
        context.log_event(
            event(asset_key=REPORTS, partition=day, metadata={**totals, **paid.figures(), "reports": page})
        )
    metadata: dict[str, float | dg.MetadataValue] = {
        "delivered": len(outcome.done),
        "waiting": len(outcome.retried),
        "failed": len(outcome.failed),
        **paid.figures(),
        "problems": dg.MetadataValue.md("\n".join(f"- {problem}" for problem in problems) or "none"),
    }
    given_up = [*not_listed, *(f"{names[item]}: {reason}" for item, reason in outcome.failed.items())]
    if given_up:
        said = f"Given up. {'. '.join(given_up)}{f'. {CHECK}' if not_listed else ''}"
        raise dg.Failure(said, metadata=metadata, allow_retries=False)
    context.add_output_metadata(metadata)


@dg.job(
    description="Everything that is due: cron jobs whose time has come, and analyses that wait for their next step.",
    tags=run_tags("vision_reports", PAID, group="vision_reports"),
)
def vision_reports() -> None:
    due_reports()


@dg.job(
    description="All analyses created on the chosen days once more, from their documents to a new upload.",
    tags=run_tags("vision_reports_backfill", PAID, group="vision_reports"),
    partitions_def=DAYS,
)
def vision_reports_backfill() -> None:
    reports_of_day()


@dg.op(description="Shows the images of every due batch to the vision model and writes the reports.")
def due_batches(context: dg.OpExecutionContext, backends: BackendsResource) -> None:
    from imgpipe_orchestration.billing.tally import tallied
    from imgpipe_orchestration.vision_reports.batch_work import work_on_all

    with tallied() as paid:
        count = work_on_all(backends.services, owner_of(backends.services, context.run))
    context.add_output_metadata({"batches": count, **paid.figures()})
    context.log.info(f"{count} batches worked on")


@dg.job(
    description="Batches that came in over the gateway's analysis backend.",
    tags=run_tags("vision_batches", PAID, group="vision_reports"),
)
def vision_batches() -> None:
    due_batches()
