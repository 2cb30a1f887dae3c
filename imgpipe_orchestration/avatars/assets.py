"""The avatars' assets: people, the seven steps of their pictures, and daily housekeeping.

The seven steps share one op, so people at different steps are worked on at the same time. Each step is still an asset
that can be selected alone; people then go only as far as the selected steps lead.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from imgpipe_orchestration.avatars.model import Step
from imgpipe_orchestration.dagster_side.assets import OWNERS, figures_of, shown
from imgpipe_orchestration.dagster_side.sensors import owner_of
from imgpipe_orchestration.resources import BackendsResource

GROUP = "avatars"

generation_tasks = dg.AssetSpec(
    "generation_tasks",
    group_name=GROUP,
    owners=OWNERS,
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


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"flowise", "postgres"},
    deps=[generation_tasks],
    pool="flowise",
    description="The people of each task, invented by Flowise in parallel batches, no two alike.",
)
def avatar_personas(context: dg.AssetExecutionContext, backends: BackendsResource) -> dg.MaterializeResult[Any]:
    from imgpipe_orchestration.avatars.work import run_data
    from imgpipe_orchestration.billing.tally import tallied

    with tallied() as paid:
        report = run_data(backends.services, owner_of(backends.services, context.run))
    return dg.MaterializeResult(metadata=shown({"tasks": report.tasks, **figures_of(report.outcome), **paid.figures()}))


def _specs() -> list[dg.AssetSpec]:
    specs: list[dg.AssetSpec] = []
    for step, (name, what, kind) in STAGES.items():
        description = f"Step {step.value}/{len(Step)}: {what}"
        before = specs[-1].key if specs else avatar_personas.key
        specs.append(
            dg.AssetSpec(name, deps=[before], description=description, group_name=GROUP, owners=OWNERS, kinds={kind})
        )
    return specs


@dg.multi_asset(
    specs=_specs(),
    name="avatar_pictures",
    can_subset=True,
    pool="openai",
    description="Takes people through the seven steps of their pictures, or as far as the chosen assets lead.",
)
def avatar_pictures(
    context: dg.AssetExecutionContext, backends: BackendsResource
) -> Iterator[dg.MaterializeResult[Any]]:
    from imgpipe_orchestration.avatars.work import run_images
    from imgpipe_orchestration.billing.tally import tallied

    chosen = {step for step, (name, _, _) in STAGES.items() if dg.AssetKey(name) in context.selected_asset_keys}
    with tallied() as paid:
        report = run_images(backends.services, owner_of(backends.services, context.run), steps=chosen)
    for step in sorted(chosen):
        metadata: dict[str, Any] = {"people_past_this_step": report.steps.get(step, 0)}
        if step in PAID_BY:
            metadata |= paid.figures([PAID_BY[step]])
        if step is max(chosen):
            metadata |= {**figures_of(report.outcome), "manifests": report.manifests}
        yield dg.MaterializeResult(asset_key=STAGES[step][0], metadata=shown(metadata))


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    deps=["avatar_results"],
    description="People pictured, people given up, paid calls and their cost, by day.",
)
def avatar_daily_figures(backends: BackendsResource) -> dg.MaterializeResult[Any]:
    from imgpipe_orchestration.avatars import figures
    from imgpipe_orchestration.storage.rows import transaction

    with transaction(backends.services.engine) as connection:
        days = figures.daily(connection)
    rows = [
        [d.day.isoformat(), d.completed, d.failed, d.calls, f"{d.cost_usd:.4f}{' (stand-in)' * d.standin}"]
        for d in days
    ]
    table = _table(["day", "pictured", "failed", "paid calls", "US dollars"], rows)
    today = days[0] if days else None
    return dg.MaterializeResult(
        metadata={
            "days": table,
            "latest cost in US dollars": float(today.cost_usd) if today else 0.0,
            "latest pictured": today.completed if today else 0,
        }
    )


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"s3"},
    deps=["avatar_base_uploads", "avatar_split_uploads"],
    description="Dry run: the images that the clean-up would remove, of tasks cancelled or failed a while ago.",
)
def avatar_cleanup_plan(backends: BackendsResource) -> dg.MaterializeResult[Any]:
    from imgpipe_orchestration.avatars import cleanup

    return _removable(cleanup.plan(backends.services))


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"s3"},
    deps=[avatar_cleanup_plan],
    description="The clean-up itself: those images removed. Materialise the plan alone to only look.",
)
def avatar_cleanup(backends: BackendsResource) -> dg.MaterializeResult[Any]:
    from imgpipe_orchestration.avatars import cleanup

    return _removable(cleanup.remove(backends.services))


def _removable(found: list[Any]) -> dg.MaterializeResult[Any]:
    rows = [[r.task_id, r.status, f"{r.finished_at:%Y-%m-%d}", r.objects, f"{r.bytes / 1e6:.1f}"] for r in found]
    table = _table(["task", "state", "since", "objects", "MB"], rows)
    megabytes = sum(r.bytes for r in found) / 1e6
    return dg.MaterializeResult(metadata={"tasks": len(found), "megabytes": megabytes, "list": table})


def _table(head: list[str], rows: list[list[Any]]) -> dg.TableMetadataValue:
    schema = dg.TableSchema([dg.TableColumn(name) for name in head])  # Dagster cannot infer it from an empty table
    return dg.MetadataValue.table([dg.TableRecord(dict(zip(head, row, strict=True))) for row in rows], schema)


DAILY = [avatar_daily_figures, avatar_cleanup_plan, avatar_cleanup]
