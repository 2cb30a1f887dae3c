"""The assets of vision reports by day, and their jobs.

A run of a sensor works on what is due of any day. A run that somebody asked for delivers the reports of its day anew.
"""

from collections.abc import Collection, Iterator
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg

from imgpipe_orchestration.dagster_side.assets import OWNERS, day_of, figures_of, is_asked_for, reported
from imgpipe_orchestration.dagster_side.run_tags import PAID, run_tags
from imgpipe_orchestration.dagster_side.sensors import owner_of
from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration.vision_reports.model import FIRST_DAY

if TYPE_CHECKING:
    from imgpipe_orchestration.storage.claims import Claim
    from imgpipe_orchestration.vision_reports.crew import Crew

GROUP = "vision_reports"
DAYS = dg.DailyPartitionsDefinition(start_date=FIRST_DAY, end_offset=1)
"""Days on which analyses were created, UTC; today among them."""
CHECK = "If it stays so, look whether that host is up and lets this machine in, and at the job's addresses and token."

ANALYSES = dg.AssetKey(["vision_reports", "analyses"])
REPORTS = dg.AssetKey(["vision_reports", "reports"])
BATCHES = dg.AssetKey(["vision_reports", "batches"])

analyses = dg.AssetSpec(
    key=ANALYSES,
    description="Analyses that the external Vision Analysis API lists as unprocessed.",
    group_name=GROUP,
    kinds={"json"},
    owners=OWNERS,
)


@dg.asset(
    key=REPORTS,
    deps=[ANALYSES],
    partitions_def=DAYS,
    output_required=False,
    pool="vision_reports",
    group_name=GROUP,
    kinds={"openai", "html"},
    owners=OWNERS,
    description=(
        "HTML reports delivered to the external API, by the day their analyses were created. A run of the sensor turns "
        "due cron jobs into executions, lists what the external APIs have unprocessed, and delivers a report for each "
        "analysis: images to a backend, the batch awaited, its report uploaded. It is red if one was given up. "
        "Materializing delivers a new report for every analysis of the day."
    ),
)
def reports(context: dg.AssetExecutionContext, backends: BackendsResource) -> Iterator[dg.MaterializeResult[Any]]:
    from imgpipe_orchestration.billing.tally import tallied
    from imgpipe_orchestration.vision_reports import analyses, runs
    from imgpipe_orchestration.vision_reports import crew as crews

    services, day = backends.services, day_of(context, DAYS)
    owner, not_listed = owner_of(services, context.run), list[str]()
    limits = {"patience": crews.PATIENCE_SECONDS, "seconds": crews.RUN_SECONDS}
    with tallied() as paid, crews.Crew(services, owner, **limits) as crew:

        def take(most: int, but: Collection[str] = ()) -> "list[Claim]":
            not_listed.extend(_not_listed(context, crew))
            return runs.take(services, owner, most, but=but)

        held = services.claims.owned(analyses.QUEUE, owner)
        if is_asked_for(context):
            opened = analyses.reopen_day(services.engine, services.claims, date.fromisoformat(day), owner)
            held += services.claims.claim_these(analyses.QUEUE, owner, opened)
            runs.note(services, owner, held)
            outcome = crew.deliver(held)
        else:
            outcome = crew.deliver(held, take)
        not_listed += _not_listed(context, crew)
    names = runs.names(services, runs.ids(outcome))
    problems = [f"{names[item]}: {told}" for item, told in runs.problems(services, outcome, crew.waiting).items()]
    for problem in problems:
        context.log.warning(problem)
    page = dg.MetadataValue.url(f"{services.settings.public_base_url}/vision-reports")
    days = {
        name: {**totals, **paid.figures(), "reports": page}
        for name, totals in runs.summary(services, list(names)).items()
        if totals["successful"] or name == day
    }
    figures: dict[str, Any] = {
        "delivered": len(outcome.done),
        "failed": len(outcome.failed),
        **paid.figures(),
        "problems": dg.MetadataValue.md("\n".join(f"- {problem}" for problem in problems) or "none"),
    }
    own = days.pop(day, {"total": 0, "successful": 0})
    yield from reported(context, REPORTS, {**figures, **own}, own=day, made=bool(own["successful"]), others=days)
    if given_up := [*not_listed, *(f"{names[item]}: {reason}" for item, reason in outcome.failed.items())]:
        said = f"Given up. {'. '.join(given_up)}{f'. {CHECK}' if not_listed else ''}"
        raise dg.Failure(said, metadata=figures, allow_retries=False)


def _not_listed(context: dg.AssetExecutionContext, crew: "Crew") -> list[str]:
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


vision_reports = dg.define_asset_job(
    "vision_reports",
    selection=dg.AssetSelection.assets(REPORTS),
    tags=run_tags("vision_reports", PAID, group=GROUP),
    description="Delivers what is due. A backfill delivers all analyses created on the chosen days once more.",
)


@dg.asset(
    key=BATCHES,
    deps=[ANALYSES],
    partitions_def=DAYS,
    output_required=False,
    group_name=GROUP,
    kinds={"openai", "html"},
    owners=OWNERS,
    description="Batches of our own analysis backend, by the day they came in: each image shown to the vision model, a "
    "report written. A run of any partition works on every batch that is due.",
)
def batches(context: dg.AssetExecutionContext, backends: BackendsResource) -> Iterator[dg.MaterializeResult[Any]]:
    from imgpipe_orchestration.billing.tally import tallied
    from imgpipe_orchestration.vision_reports.batch_work import days_of, work_on_all

    services, day = backends.services, day_of(context, DAYS)
    with tallied() as paid:
        outcome = work_on_all(services, owner_of(services, context.run))
    made = days_of(services, outcome)
    own = {"batches": made.pop(day, 0), **figures_of(outcome), **paid.figures()}
    others = {other: {"batches": count, "made by the run of": day} for other, count in made.items()}
    yield from reported(context, BATCHES, own, own=day, made=bool(own["batches"]), others=others)


vision_batches = dg.define_asset_job(
    "vision_batches",
    selection=dg.AssetSelection.assets(BATCHES),
    tags=run_tags("vision_batches", PAID, group=GROUP),
    description="Batches that came in over the gateway's analysis backend.",
)
