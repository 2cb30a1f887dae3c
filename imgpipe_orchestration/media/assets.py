"""The five stages of an image as assets, partitioned by day of upload; the jobs around them, and their checks.

They are one Dagster op, so that images in different stages are worked on at the same time. Each stage is still an asset
that can be selected alone: images then go only as far as the selected stages lead.

Materialising a day processes what is due of it, and of other days what is due while it works. When a person or a
backfill asks for it (and not the sensor), it also makes again what an older recipe or older questions made.
"""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg

from imgpipe_orchestration.dagster_side.assets import DAYS, day_of, figures_of, is_asked_for, reported
from imgpipe_orchestration.dagster_side.run_tags import CPU, NETWORK, run_tags
from imgpipe_orchestration.dagster_side.sensors import owner_of
from imgpipe_orchestration.media.model import Step
from imgpipe_orchestration.resources import BackendsResource

if TYPE_CHECKING:
    from imgpipe_orchestration.media.stages import Stage

_SHEET = 32
"""Most pictures of a contact sheet."""


_stage = partial(dg.AssetSpec, partitions_def=DAYS, skippable=True)

pending_images = dg.AssetSpec(
    "pending_images",
    kinds={"postgres"},
    description="Uploads as the gateway takes them in: a row for each file, in PostgreSQL or the main API's MySQL.",
)

SPECS = [
    _stage(
        "retrieve_file",
        deps=["pending_images"],
        kinds={"s3", "postgres"},
        description="The originals of a day's uploads: fetched, kept under bulk/, checked to be images.",
    ),
    _stage(
        "ai_visual_analysis",
        deps=["retrieve_file"],
        kinds={"openai", "googlecloud", "postgres"},
        description="What each image shows: measured here, seen by Google Vision and OpenAI, embedded for search. A "
        "run of any partition also completes analyses of other days that lack a provider's part (`healed`).",
    ),
    _stage(
        "resize_optimize",
        deps=["retrieve_file", "ai_visual_analysis"],
        kinds={"python", "s3"},
        description="Six sizes of each image in AVIF, WebP and JPEG or PNG, stored under library/ with their manifest.",
    ),
    _stage(
        "update_callback",
        deps=["resize_optimize"],
        kinds={"python"},
        description="The main API's acknowledgement of each processed image.",
    ),
    _stage(
        "replace_urls",
        deps=["update_callback"],
        kinds={"postgres"},
        description="Profiles that show smart URLs instead of temp URLs; complete uploads; temp files gone. Its queues "
        "belong to no day: a run of any partition does what is due of all days, and its figures count that.",
    ),
]


@dg.multi_asset(
    specs=SPECS,
    name="media_images",
    can_subset=True,
    description="Takes a day's images through the five stages, or through the chosen ones, each image by itself.",
)
def media_images(context: dg.AssetExecutionContext, backends: BackendsResource) -> Iterator[dg.MaterializeResult[Any]]:
    from imgpipe_orchestration.billing.tally import tallied
    from imgpipe_orchestration.media.runs import take_through

    services, day = backends.services, day_of(context, DAYS)
    chosen = [spec.key.path[-1] for spec in SPECS if spec.key in context.selected_asset_keys]
    asked = is_asked_for(context)  # the sensor's runs do not look for what is outdated: that reads the whole day
    tag = context.run.tags.get("urgent", "true")
    if tag not in {"true", "false"}:
        raise dg.Failure(f"The run's tag urgent is {tag!r}. It can be true or false.", allow_retries=False)
    urgent = tag == "true"
    with tallied() as paid:
        stages = take_through(services, owner_of(services, context.run), day, chosen, anew=asked, urgent=urgent)
    for name, stage in stages.items():
        if name == Step.AI_VISUAL_ANALYSIS:
            stage.figures.update(paid.figures())
        by_day = Counter(claim.partition or day for claim in stage.outcome.done)
        made = bool(by_day.pop(day, 0))
        figures = _figures(stage) or {"images": 0}
        if by_day:
            figures |= {"images": figures["images"] - by_day.total(), "of_other_days": by_day.total()}
        others = {other: {"images": images, "made by the run of": day} for other, images in by_day.items()}
        if name == Step.RESIZE_OPTIMIZE and stage.outcome.done:
            made_of = [claim.item_id for claim in stage.outcome.done[:_SHEET]]
            smart, pages = services.settings.smart_media_base_url, f"{services.settings.public_base_url}/media"
            # Only addresses are stored, so that what is deleted, private or held back later is not shown there either.
            sheet = (f"[![{i}]({smart}/{i}?size=thumbnail)]({pages}/{i})" for i in made_of)
            figures["contact_sheet"] = dg.MetadataValue.md(" ".join(sheet))
        yield from reported(context, dg.AssetKey(str(name)), figures, own=day, made=made, others=others)


def _figures(stage: "Stage") -> dict[str, Any]:
    """A stage's totals and its failures by item."""
    figures: dict[str, Any] = {name: round(n, 6 if name.endswith("_usd") else 2) for name, n in stage.figures.items()}
    if stage.outcome.empty:  # zeros would look like figures of the day, whose images an earlier run processed
        return {name: figure for name, figure in figures.items() if figure or name == "ordered_again"}
    return {**figures_of(stage.outcome, done="images"), **figures}


evaluation_set = dg.AssetSpec(
    "evaluation_set",
    description="Nine photographs and three logos of which we know what a description must say.",
)


@dg.asset(
    deps=["evaluation_set"],
    kinds={"openai"},
    description="What the models of the task describe get right over twelve pictures, with the prompt in force.",
    check_specs=[
        dg.AssetCheckSpec(
            "fields_are_right",
            asset="model_evaluation",
            description="The first model gets at least EVALUATION_LEAST of the expected fields right.",
        )
    ],
)
def model_evaluation(backends: BackendsResource) -> Iterator[dg.MaterializeResult[Any]]:
    from imgpipe_orchestration.media import evaluation

    services = backends.services
    prompt = services.prompts["describe"]
    results = evaluation.evaluate(services, evaluation.OWN_SET, services.models.choices("describe"), prompt)
    wrong = [
        f"{one.picture.image.rpartition('/')[2]}: {', '.join(one.wrong)}" for one in results[0].answers if one.wrong
    ]
    figures = {
        one.model: f"{one.fields_right:.0%} of fields right, schema kept {one.schema_kept:.0%}" for one in results
    }
    share, least = results[0].fields_right, services.settings.evaluation_least
    told: dict[str, Any] = {"fields_right": round(share, 3), "least": least, "wrong": "; ".join(wrong)}
    check = dg.AssetCheckResult(check_name="fields_are_right", passed=share >= least, metadata=told)
    yield dg.MaterializeResult(metadata={**figures, "a stand-in answered": results[0].standin}, check_results=[check])


media_pipeline = dg.define_asset_job(
    "media_pipeline",
    # The checks have a job of their own: a batch of photos should not wait for an audit of a week.
    selection=dg.AssetSelection.assets(media_images).without_checks(),
    tags=run_tags("media", CPU, group="media"),
    description="From upload to served variant. A backfill over days makes again what an older recipe made.",
)

media_checks = dg.define_asset_job(
    "media_checks",
    selection=dg.AssetSelection.checks_for_assets(media_images),
    tags=run_tags("media_checks", NETWORK, group="media"),
    description="The asset checks of the media pipeline.",
)

media_evaluation = dg.define_asset_job(
    "media_evaluation",
    selection=dg.AssetSelection.assets(model_evaluation),
    tags=run_tags("media_evaluation", NETWORK, group="media"),
    description="What the models get right over a set of pictures.",
)


SHOWN = 50
"""Ids listed in a check's metadata."""


def _result(found: list[Any], **more: Any) -> dg.AssetCheckResult:
    metadata = {"found": len(found), **more}
    if found:
        metadata["which"] = ", ".join(str(one) for one in found[:SHOWN])
    return dg.AssetCheckResult(passed=not found, metadata=metadata)


@dg.asset_check(
    asset="resize_optimize",
    description="Every finished image has every size, in a format that every browser shows (last seven days).",
)
def finished_images_have_every_size(backends: BackendsResource) -> dg.AssetCheckResult:
    from imgpipe_orchestration.media.checks import incomplete

    return _result(incomplete(backends.services))


@dg.asset_check(
    asset="resize_optimize",
    description="Originals and variants of the last seven days are in the object store (a random 5,000 of them).",
)
def named_objects_are_stored(backends: BackendsResource) -> dg.AssetCheckResult:
    from imgpipe_orchestration.media.checks import missing_objects

    looked_at, missing = missing_objects(backends.services)
    return _result(missing, looked_at=looked_at)


@dg.asset_check(
    asset="update_callback",
    description="No image waits for more than an hour for the main API's acknowledgement, or was given up over it.",
)
def callbacks_are_acknowledged(backends: BackendsResource) -> dg.AssetCheckResult:
    from imgpipe_orchestration.media.checks import unacknowledged

    return _result(unacknowledged(backends.services))


CHECKS = [finished_images_have_every_size, named_objects_are_stored, callbacks_are_acknowledged]


@dg.op(
    description="Registers pending uploads and enqueues processed ones that no mark and no report has covered; "
    "takes up uploads that were set back to pending; gives analyses that never came another round."
)
def reconcile_uploads(context: dg.OpExecutionContext, backends: BackendsResource) -> None:
    from imgpipe_orchestration.media import checks, intake

    registered = intake.take_in(backends.services, everything=True)
    reopened = checks.reopen(backends.services)
    enqueued = checks.replace_again(backends.services)
    to_heal = checks.heal_again(backends.services)
    metadata: dict[str, Any] = {"registered": registered, "reopened": reopened}
    context.add_output_metadata(metadata | {"urls_enqueued": enqueued, "to_heal": to_heal})


@dg.job(
    tags=run_tags("media_reconciliation", NETWORK, group="media"),
    description="Reads all of pending_images, trusting no mark: what slipped by is taken up.",
)
def media_reconciliation() -> None:
    reconcile_uploads()
