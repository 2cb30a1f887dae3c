"""The five steps of the checklist as assets, partitioned by day of upload.

Materialising a day means bringing it up to date: what is due of that day is taken through the steps, and, when a person
or a backfill asks (not the sensor), what an older recipe or question made is made again.
"""

from typing import TYPE_CHECKING, Any

import dagster as dg

from imgpipe_orchestration.media.model import FIRST_DAY, Step
from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration.sensors import owner_of

if TYPE_CHECKING:
    from imgpipe_orchestration.media.stages import Stage

GROUP = "media"
OWNERS = ["team:images"]
DUE_ONLY = "imgpipe/due_only"
"""Run tag of the sensor's runs: only what is due, no look at what could be made again."""

DAYS = dg.DailyPartitionsDefinition(start_date=FIRST_DAY, end_offset=1)
"""Days of upload, UTC; today is one of them."""


pending_images = dg.AssetSpec(
    "pending_images",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    description="Uploads as the gateway takes them in: a row for each file, in PostgreSQL or the main API's MySQL.",
)


def _result(stage: "Stage", **more: Any) -> dg.MaterializeResult[Any]:
    """A stage's totals, its failures by item, and a picture of what it made; of `more`, all."""
    outcome = stage.outcome
    if outcome.empty:  # zeros would pass for figures of the day, whose images an earlier run made
        figures: dict[str, Any] = {name: value for name, value in stage.figures.items() if value}
    else:
        figures = {
            "images": len(outcome.done),
            "retried": len(outcome.retried),
            "failed": len(outcome.failed),
            "left": len(outcome.left),
            "seconds": round(outcome.seconds, 3),
            **stage.figures,
        }
    metadata = {**figures, **more} or {"images": 0}
    if outcome.done:
        metadata["milliseconds_per_image"] = round(1000 * outcome.seconds / len(outcome.done), 1)
    errors = {**outcome.retried, **outcome.failed}
    if errors:
        rows = [dg.TableRecord({"item": media, "error": error}) for media, error in sorted(errors.items())[:50]]
        metadata["errors"] = dg.MetadataValue.table(rows)
    if stage.sheet:
        from imgpipe_orchestration.imaging import contact_sheet

        ids = ", ".join(str(media) for media, _ in stage.sheet[:32])
        sheet = contact_sheet.markdown([data for _, data in stage.sheet], f"media {ids}")
        metadata["contact_sheet"] = dg.MetadataValue.md(sheet)
    return dg.MaterializeResult(metadata=metadata)


def _brings_up_to_date(context: dg.AssetExecutionContext) -> bool:
    """Whether a person or a backfill asked for the run, and not the sensor."""
    return context.run.tags.get(DUE_ONLY) != "true"


def _day(context: dg.AssetExecutionContext, backends: BackendsResource, step: Step) -> dict[str, float]:
    """How much of the day is up to date after the run. Not asked in the sensor's runs: it reads the whole day."""
    from imgpipe_orchestration.media.remake import up_to_date

    return up_to_date(backends.services, context.partition_key, step) if _brings_up_to_date(context) else {}


def _chosen(context: dg.AssetExecutionContext) -> list[str]:
    """The run's assets in their order: all, unless somebody chose some or executes the rest of a run again."""
    names = [asset.key.path[-1] for asset in ASSETS]
    chosen = context.run.step_keys_to_execute or names
    return [name for name in names if name in chosen]


def _claim_at_the_beginning(context: dg.AssetExecutionContext, backends: BackendsResource) -> None:
    """Claim what is due when the run has no earlier step. `retrieve_file` does so by itself."""
    from imgpipe_orchestration.media.stages import claim_batch

    if context.asset_key.path[-1] == _chosen(context)[0]:
        claim_batch(backends.services, owner_of(context.run), context.partition_key)


def _give_back_at_the_end(context: dg.AssetExecutionContext, backends: BackendsResource) -> None:
    """Give back what the run holds when it has no later step. `replace_urls` does so by itself. Left to the end of its
    lease, an image would be taken for one that a worker died over."""
    if context.asset_key.path[-1] == _chosen(context)[-1]:
        backends.services.claims.release(owner_of(context.run))


def _again(stage: "Stage") -> dict[str, float]:
    """The figures of what was made again, beside those of the first stage; none if there was nothing to do."""
    if stage.outcome.empty:
        return {}
    figures = {**stage.figures, "done": len(stage.outcome.done)}
    return {f"again_{name}": value for name, value in figures.items()}


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"s3", "postgres"},
    deps=[pending_images],
    partitions_def=DAYS,
    description="The originals of a day's uploads: fetched, kept under bulk/, checked to be images.",
)
def retrieve_file(context: dg.AssetExecutionContext, backends: BackendsResource) -> dg.MaterializeResult[Any]:
    from imgpipe_orchestration.media.stages import retrieve_stage

    stage = retrieve_stage(backends.services, owner_of(context.run), context.partition_key)
    _give_back_at_the_end(context, backends)
    return _result(stage, **_day(context, backends, Step.RETRIEVE_FILE))


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"openai", "googlecloud", "postgres"},
    deps=[retrieve_file],
    partitions_def=DAYS,
    description="What each image shows: measured here, seen by Google Vision and OpenAI, embedded for search.",
)
def ai_visual_analysis(context: dg.AssetExecutionContext, backends: BackendsResource) -> dg.MaterializeResult[Any]:
    from imgpipe_orchestration.media.remake import make_analyses, order_analyses
    from imgpipe_orchestration.media.stages import analyse_stage

    services, owner = backends.services, owner_of(context.run)
    _claim_at_the_beginning(context, backends)
    stage = analyse_stage(services, owner)
    ordered = {"ordered_again": order_analyses(services, context.partition_key)} if _brings_up_to_date(context) else {}
    again = make_analyses(services, owner, context.partition_key)
    _give_back_at_the_end(context, backends)
    return _result(stage, **_day(context, backends, Step.AI_VISUAL_ANALYSIS), **ordered, **_again(again))


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"python", "s3"},
    deps=[retrieve_file, ai_visual_analysis],
    partitions_def=DAYS,
    description="Six sizes of each image in AVIF, WebP and JPEG or PNG, stored under library/ with their manifest.",
)
def resize_optimize(context: dg.AssetExecutionContext, backends: BackendsResource) -> dg.MaterializeResult[Any]:
    from imgpipe_orchestration.media.remake import make_variants, order_variants
    from imgpipe_orchestration.media.stages import resize_stage

    services, owner = backends.services, owner_of(context.run)
    _claim_at_the_beginning(context, backends)
    stage = resize_stage(services, owner)
    ordered = {"ordered_again": order_variants(services, context.partition_key)} if _brings_up_to_date(context) else {}
    again = make_variants(services, owner, context.partition_key)
    _give_back_at_the_end(context, backends)
    stage.sheet += again.sheet
    return _result(stage, **_day(context, backends, Step.RESIZE_OPTIMIZE), **ordered, **_again(again))


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"python"},
    deps=[resize_optimize],
    partitions_def=DAYS,
    description="The main API's acknowledgement of each processed image.",
)
def update_callback(context: dg.AssetExecutionContext, backends: BackendsResource) -> dg.MaterializeResult[Any]:
    from imgpipe_orchestration.media.stages import callback_stage

    _claim_at_the_beginning(context, backends)
    stage = callback_stage(backends.services, owner_of(context.run))
    _give_back_at_the_end(context, backends)
    return _result(stage, **_day(context, backends, Step.UPDATE_CALLBACK))


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    deps=[update_callback],
    partitions_def=DAYS,
    description="Profiles that show smart URLs instead of temp URLs; complete uploads; temp files gone.",
)
def replace_urls(context: dg.AssetExecutionContext, backends: BackendsResource) -> dg.MaterializeResult[Any]:
    from imgpipe_orchestration.media.stages import urls_stage

    return _result(urls_stage(backends.services, owner_of(context.run)))


ASSETS = [retrieve_file, ai_visual_analysis, resize_optimize, update_callback, replace_urls]
