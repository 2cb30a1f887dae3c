"""The assets of vision reports by day, and their jobs.

A run of a sensor works on what is due of any day. A run that somebody asked for delivers the reports of its day anew.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import date
from typing import Any

import dagster as dg

from imgpipe_orchestration.dagster_side.assets import day_of, figures_of, is_asked_for, reported
from imgpipe_orchestration.dagster_side.run_tags import PAID, run_tags
from imgpipe_orchestration.dagster_side.sensors import owner_of
from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration.vision_reports.model import FIRST_DAY

GROUP = "vision_reports"
DAYS = dg.DailyPartitionsDefinition(start_date=FIRST_DAY, end_offset=1)
"""Days on which analyses were created, UTC; today among them."""
CHECK = "If this persists, check that the host is up and lets this machine in, and check the job's addresses and token."

ANALYSES = dg.AssetKey(["vision_reports", "analyses"])
REPORTS = dg.AssetKey(["vision_reports", "reports"])
BATCHES = dg.AssetKey(["vision_reports", "batches"])

analyses = dg.AssetSpec(
    key=ANALYSES,
    description="Analyses that the external Vision Analysis API lists as unprocessed.",
    kinds={"json"},
)


@dg.asset(
    key=REPORTS,
    deps=[ANALYSES],
    partitions_def=DAYS,
    output_required=False,
    kinds={"openai", "html"},
    description=(
        "HTML reports delivered to the external API, by the day their analyses were created. A run of the sensor turns "
        "due cron jobs into executions, lists what the external APIs have unprocessed, and delivers a report for each "
        "analysis: images to a backend, the batch awaited, its report uploaded. It is red if one was given up. "
        "Materializing delivers a new report for every analysis of the day."
    ),
)
def reports(context: dg.AssetExecutionContext, backends: BackendsResource) -> Iterator[dg.MaterializeResult[Any]]:
    from imgpipe_orchestration.billing.tally import tallied
    from imgpipe_orchestration.storage.work import days_of
    from imgpipe_orchestration.vision_reports import analyses, executions
    from imgpipe_orchestration.vision_reports.runs import Crew

    services, day, asked = backends.services, day_of(context, DAYS), is_asked_for(context)
    owner = owner_of(services, context.run)
    with tallied() as paid, ExitStack() as opened:
        crew = Crew(services, owner, opened)
        held = services.claims.owned(analyses.QUEUE, owner)
        if asked:
            first = context.run.root_run_id or context.run.run_id
            again = analyses.reopen_day(services.engine, services.claims, date.fromisoformat(day), first)
            held += services.claims.claim_these(analyses.QUEUE, owner, again)
            executions.note_run(services.engine, held)
        outcome, lists = crew.deliver(held, joining=not asked)
    for number, reason in lists.retried.items():
        context.log.warning(f"Execution {number} waits for its list. {reason}. {CHECK}")
    page = dg.MetadataValue.url(f"{services.settings.public_base_url}/vision-reports")
    made = days_of(services.engine, outcome.done, "vision_analyses", "created_day")
    own = {"reports": made.pop(day, 0), **figures_of(outcome, done="delivered"), **paid.figures(), "page": page}
    others = {other: {"reports": count, "made by the run of": day} for other, count in made.items()}
    yield from reported(context, REPORTS, own, own=day, made=bool(own["reports"]), others=others)
    failed = [f"Execution {number}: {reason}. {CHECK}" for number, reason in lists.failed.items()]
    names = analyses.names(services.engine, outcome.failed)
    failed += [f"{name}: {outcome.failed[item]}" for item, name in names.items()]
    if failed:
        raise dg.Failure(f"Given up. {' '.join(failed)}", metadata=own, allow_retries=False)


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
    kinds={"openai", "html"},
    description="Batches of our own analysis backend, by the day they came in: each image shown to the vision model, a "
    "report written. A run of any partition works on every batch that is due.",
)
def batches(context: dg.AssetExecutionContext, backends: BackendsResource) -> Iterator[dg.MaterializeResult[Any]]:
    from imgpipe_orchestration.billing.tally import tallied
    from imgpipe_orchestration.storage.work import days_of
    from imgpipe_orchestration.vision_reports.batch_work import work_on_all

    services, day = backends.services, day_of(context, DAYS)
    with tallied() as paid:
        outcome = work_on_all(services, owner_of(services, context.run))
    made = days_of(services.engine, outcome.done, "vision_batches")
    own = {"batches": made.pop(day, 0), **figures_of(outcome), **paid.figures()}
    others = {other: {"batches": count, "made by the run of": day} for other, count in made.items()}
    yield from reported(context, BATCHES, own, own=day, made=bool(own["batches"]), others=others)


vision_batches = dg.define_asset_job(
    "vision_batches",
    selection=dg.AssetSelection.assets(BATCHES),
    tags=run_tags("vision_batches", PAID, group=GROUP),
    description="Batches that came in over the gateway's analysis backend.",
)
