"""The avatars' assets by day of request: people, and the seven steps of their pictures. And the jobs around them.

The seven steps share one op, so people at different steps are worked on at the same time. Each step is still an asset
that can be selected alone; people then go only as far as the selected steps lead. A run works on what is due of any
day, and makes nothing again: what is finished was paid for.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from imgpipe_orchestration.avatars.model import Step
from imgpipe_orchestration.billing.tally import tallied
from imgpipe_orchestration.dagster_side.assets import DAYS, day_of, figures_of, reported
from imgpipe_orchestration.dagster_side.run_tags import PAID, run_tags
from imgpipe_orchestration.dagster_side.sensors import owner_of
from imgpipe_orchestration.resources import BackendsResource

GROUP = "avatars"

generation_tasks = dg.AssetSpec(
    "generation_tasks",
    kinds={"postgres"},
    description="Requests for personas as the gateway takes them in: a row each.",
)

STAGES = {
    Step.PROMPT: ("avatar_image_prompts", "the words of each picture, written by Flowise.", "flowise"),
    Step.BASE: ("avatar_base_selfies", "a selfie of each person, drawn by OpenAI.", "openai"),
    Step.BASE_UPLOAD: ("avatar_base_uploads", "selfies judged, labelled and public as base.png.", "s3"),
    Step.GRID: ("avatar_grids", "a 2x2 grid of the same person, drawn by OpenAI from the selfie.", "openai"),
    Step.SPLIT: ("avatar_splits", "seams found, four pictures cut, trimmed, squared and judged.", "opencv"),
    Step.UPLOAD: ("avatar_split_uploads", "the four pictures, labelled and public, with thumbnails.", "s3"),
    Step.URLS: ("avatar_results", "the five URLs of each person; tasks completed, manifests.", "postgres"),
}
"""Of each step its asset's name, what the asset is, and its kind."""
PAID_BY = {Step.PROMPT: "prompt", Step.BASE: "images", Step.GRID: "edits"}
"""The operation of the paid calls of a step."""
JUDGED_BY = ("moderation", "safe_search")
"""Those of verdicts, which are told of with the last step of a run."""


@dg.asset(
    kinds={"flowise", "postgres"},
    deps=[generation_tasks],
    partitions_def=DAYS,
    output_required=False,
    pool="flowise",
    op_tags={"dagster/priority": "1"},  # before their pictures, in a run of both
    description="The people of each task, invented by Flowise in parallel batches, no two alike.",
)
def avatar_personas(
    context: dg.AssetExecutionContext, backends: BackendsResource
) -> Iterator[dg.MaterializeResult[Any]]:
    from imgpipe_orchestration.avatars.runs import run_data

    day = day_of(context, DAYS)
    with tallied() as paid:
        report = run_data(backends.services, owner_of(backends.services, context.run))
    made = report.made[0]
    own = {"tasks": made.pop(day, 0), **figures_of(report.outcome), **paid.figures()}
    others = {other: {"tasks": tasks, "made by the run of": day} for other, tasks in made.items()}
    yield from reported(context, avatar_personas.key, own, own=day, made=bool(own["tasks"]), others=others)


# Without partitions: of an input with them Dagster asks the run's partition, and a launch by hand may give none. Not
# after `avatar_personas`: a backfill stops at an asset that no job makes, and would leave out the pictures.
generation_results = dg.AssetSpec(
    "generation_results",
    deps=[generation_tasks],
    kinds={"postgres"},
    description="The people of all tasks, a row each: `avatar_personas` adds them, the steps take those due.",
)


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            name,
            deps=[STAGES[Step(step - 1)][0] if step > 1 else generation_results],
            description=f"Step {step.value}/{len(Step)}: {what}",
            kinds={kind},
            partitions_def=DAYS,
            skippable=True,
        )
        for step, (name, what, kind) in STAGES.items()
    ],
    name="avatar_pictures",
    can_subset=True,
    pool="openai",
    description="Takes people through the seven steps of their pictures, or as far as the chosen assets lead.",
)
def avatar_pictures(
    context: dg.AssetExecutionContext, backends: BackendsResource
) -> Iterator[dg.MaterializeResult[Any]]:
    from imgpipe_orchestration.avatars.runs import run_images

    day = day_of(context, DAYS)
    chosen = {step for step, (name, _, _) in STAGES.items() if dg.AssetKey(name) in context.selected_asset_keys}
    with tallied() as paid:
        report = run_images(backends.services, owner_of(backends.services, context.run), steps=chosen)
    for step in sorted(chosen):
        made = report.made[step]
        own: dict[str, Any] = {"people": made.pop(day, 0)}
        last = step is max(chosen)
        if step in PAID_BY or last:
            own |= paid.figures([PAID_BY.get(step, ""), *(JUDGED_BY if last else ())])
        if last:
            own |= {**figures_of(report.outcome), "manifests": report.manifests}
        others = {other: {"people": people, "made by the run of": day} for other, people in made.items()}
        yield from reported(
            context, dg.AssetKey(STAGES[step][0]), own, own=day, made=bool(own["people"]), others=others
        )


# Two jobs with a limit each, so that a data run and an image run can run at the same time.
avatar_data = dg.define_asset_job(
    "avatar_data",
    selection=dg.AssetSelection.assets(avatar_personas),
    tags=run_tags("avatar_data", PAID, group=GROUP),
    description="pending -> generating-data -> data-generated: invents the people of tasks that are due.",
)

avatar_images = dg.define_asset_job(
    "avatar_images",
    selection=dg.AssetSelection.assets(avatar_pictures),
    tags=run_tags("avatar_images", PAID, group=GROUP),
    description="data-generated -> generating-images -> completed or failed: the seven steps for people who are due.",
)
