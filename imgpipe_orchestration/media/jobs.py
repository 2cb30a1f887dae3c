"""The media pipeline's jobs: the five assets, their checks, and the reconciliation of missed rows."""

from typing import Any

import dagster as dg

from imgpipe_orchestration.dagster_side.run_tags import CPU, NETWORK, run_tags
from imgpipe_orchestration.media.assets import media_images, model_evaluation
from imgpipe_orchestration.resources import BackendsResource

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


@dg.op(
    description="Registers pending uploads and enqueues processed ones that no mark and no report has covered; "
    "takes up uploads that were set back to pending; gives analyses that never came another round."
)
def reconcile_uploads(context: dg.OpExecutionContext, backends: BackendsResource) -> None:
    from imgpipe_orchestration.media import audit, intake

    registered = intake.take_in(backends.services, everything=True)
    reopened = audit.reopened(backends.services)
    enqueued = audit.unreplaced(backends.services)
    to_heal = audit.unhealed(backends.services)
    metadata: dict[str, Any] = {"registered": registered, "reopened": reopened}
    context.add_output_metadata(metadata | {"urls_enqueued": enqueued, "to_heal": to_heal})


@dg.job(
    tags=run_tags("media_reconciliation", NETWORK, group="media"),
    description="Reads all of pending_images, trusting no mark: what slipped by is taken up.",
)
def media_reconciliation() -> None:
    reconcile_uploads()
