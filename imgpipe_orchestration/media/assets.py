"""The five steps of the checklist as assets, partitioned by day of upload.

Materialising a day processes what is due of it. When a person or a backfill asks for it (and not the sensor), it also
makes again what an older recipe or older questions made.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import dagster as dg

from imgpipe_orchestration.assets import OWNERS, day_of, figures_of
from imgpipe_orchestration.media.model import Step
from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration.sensors import owner_of
from imgpipe_orchestration.settings import first_day

if TYPE_CHECKING:
    from imgpipe_orchestration.media.stages import Stage
    from imgpipe_orchestration.services import Services

GROUP = "media"
DUE_ONLY = "imgpipe/due_only"
"""Run tag of the sensor's runs, which process only what is due and do not look for outdated images."""

DAYS = dg.DailyPartitionsDefinition(start_date=first_day(), end_offset=1)
"""Days of upload, UTC, including today."""


pending_images = dg.AssetSpec(
    "pending_images",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    description="Uploads as the gateway takes them in: a row for each file, in PostgreSQL or the main API's MySQL.",
)


def _result(backends: BackendsResource, stage: "Stage", **more: Any) -> dg.MaterializeResult[Any]:
    """A stage's totals (and `more`), its failures by item, and a contact sheet of what it made, with links to the pages
    of the images, as metadata."""
    outcome = stage.outcome
    if outcome.empty:  # zeros would look like figures of the day, whose images an earlier run processed
        figures: dict[str, Any] = {name: value for name, value in stage.figures.items() if value}
    else:
        figures = {**figures_of(outcome, done="images"), **stage.figures}
    metadata = {**figures, **more} or {"images": 0}
    if outcome.done:
        metadata["milliseconds_per_image"] = round(1000 * outcome.seconds / len(outcome.done), 1)
    if stage.sheet:
        from imgpipe_orchestration.imaging import contact_sheet

        pages = f"{backends.services.settings.public_base_url}/media"
        links = ", ".join(f"[{media}]({pages}/{media})" for media, _ in stage.sheet[:32])
        sheet = contact_sheet.markdown([data for _, data in stage.sheet], f"media {links}")
        metadata["contact_sheet"] = dg.MetadataValue.md(sheet)
    return dg.MaterializeResult(metadata=metadata)


def _brings_up_to_date(context: dg.AssetExecutionContext) -> bool:
    """Whether a person or a backfill asked for the run, and not the sensor."""
    return context.run.tags.get(DUE_ONLY) != "true"


def _up_to_date(context: dg.AssetExecutionContext, backends: BackendsResource, step: Step) -> dict[str, float]:
    """How much of the day is up to date after the run. Not for the sensor's runs, as it reads the whole day."""
    from imgpipe_orchestration.media.remake import up_to_date

    return up_to_date(backends.services, day_of(context, DAYS), step) if _brings_up_to_date(context) else {}


def _chosen(context: dg.AssetExecutionContext) -> list[str]:
    """The run's assets in their order: all, unless somebody selected some or re-executes a part of a run."""
    names = [asset.key.path[-1] for asset in ASSETS]
    chosen = context.run.step_keys_to_execute or names
    return [name for name in names if name in chosen]


def _claim_at_the_beginning(context: dg.AssetExecutionContext, backends: BackendsResource) -> None:
    """Claim what is due if this is the run's first step; `retrieve_file` does so itself."""
    from imgpipe_orchestration.media.stages import claim_batch

    if context.asset_key.path[-1] == _chosen(context)[0]:
        claim_batch(backends.services, owner_of(backends.services, context.run), day_of(context, DAYS))


def _give_back_at_the_end(context: dg.AssetExecutionContext, backends: BackendsResource) -> None:
    """Give back what the run holds if this is its last step; `replace_urls` does so itself.

    If its lease ended instead, an image would be treated as one that its worker died over.
    """
    if context.asset_key.path[-1] == _chosen(context)[-1]:
        backends.services.claims.release(owner_of(backends.services, context.run))


def _due_and_outdated(
    context: dg.AssetExecutionContext,
    backends: BackendsResource,
    step: Step,
    process: "Callable[[Services, str], Stage]",
    remake: "Callable[[Services, str, str], Stage]",
) -> dg.MaterializeResult[Any]:
    """Take what is due through a step, then make again what is ordered for the day; its figures begin with `again_`."""
    from imgpipe_orchestration.media.remake import order

    services, day = backends.services, day_of(context, DAYS)
    owner = owner_of(services, context.run)
    _claim_at_the_beginning(context, backends)
    stage = process(services, owner)
    figures: dict[str, Any] = {}
    if _brings_up_to_date(context):
        figures["ordered_again"] = order(services, day, step)
    again = remake(services, owner, day)
    _give_back_at_the_end(context, backends)
    stage.sheet += again.sheet
    if not again.outcome.empty:
        told = {**figures_of(again.outcome), **again.figures}
        figures |= {f"again_{name}": value for name, value in told.items()}
    return _result(backends, stage, **_up_to_date(context, backends, step), **figures)


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

    stage = retrieve_stage(backends.services, owner_of(backends.services, context.run), day_of(context, DAYS))
    _give_back_at_the_end(context, backends)
    return _result(backends, stage, **_up_to_date(context, backends, Step.RETRIEVE_FILE))


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"openai", "googlecloud", "postgres"},
    deps=[retrieve_file],
    partitions_def=DAYS,
    description=(
        "What each image shows: measured here, seen by Google Vision and OpenAI, embedded for search. A run of any "
        "partition also completes analyses of other days that lack a provider's part (`healed`)."
    ),
)
def ai_visual_analysis(context: dg.AssetExecutionContext, backends: BackendsResource) -> dg.MaterializeResult[Any]:
    from imgpipe_orchestration.media.remake import make_analyses
    from imgpipe_orchestration.media.stages import analyse_stage

    return _due_and_outdated(context, backends, Step.AI_VISUAL_ANALYSIS, analyse_stage, make_analyses)


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"python", "s3"},
    deps=[retrieve_file, ai_visual_analysis],
    partitions_def=DAYS,
    description="Six sizes of each image in AVIF, WebP and JPEG or PNG, stored under library/ with their manifest.",
)
def resize_optimize(context: dg.AssetExecutionContext, backends: BackendsResource) -> dg.MaterializeResult[Any]:
    from imgpipe_orchestration.media.remake import make_variants
    from imgpipe_orchestration.media.stages import resize_stage

    return _due_and_outdated(context, backends, Step.RESIZE_OPTIMIZE, resize_stage, make_variants)


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
    stage = callback_stage(backends.services, owner_of(backends.services, context.run))
    _give_back_at_the_end(context, backends)
    return _result(backends, stage, **_up_to_date(context, backends, Step.UPDATE_CALLBACK))


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    deps=[update_callback],
    partitions_def=DAYS,
    description=(
        "Profiles that show smart URLs instead of temp URLs; complete uploads; temp files gone. Its queues belong to "
        "no day: a run of any partition does what is due of all days, and its figures count that."
    ),
)
def replace_urls(context: dg.AssetExecutionContext, backends: BackendsResource) -> dg.MaterializeResult[Any]:
    from imgpipe_orchestration.media.stages import urls_stage

    return _result(backends, urls_stage(backends.services, owner_of(backends.services, context.run)))


ASSETS = [retrieve_file, ai_visual_analysis, resize_optimize, update_callback, replace_urls]
