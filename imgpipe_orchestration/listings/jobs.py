"""The listings' jobs: work through the queue, and make a day again."""

from typing import TYPE_CHECKING

import dagster as dg

from imgpipe_orchestration.dagster_side.run_tags import CPU, run_tags
from imgpipe_orchestration.dagster_side.sensors import owner_of
from imgpipe_orchestration.listings.assets import figures_of, gallery, listing_images
from imgpipe_orchestration.resources import BackendsResource

if TYPE_CHECKING:
    from imgpipe_orchestration.listings.drain import Day


@dg.op(description="Takes due images in batches through the steps until nothing is due or the time is up.")
def drain_image_queue(context: dg.OpExecutionContext, backends: BackendsResource) -> None:
    from imgpipe_orchestration.listings import control
    from imgpipe_orchestration.listings.drain import Drained

    done = Drained()
    try:
        control.run(backends.services, owner_of(backends.services, context.run), done)
    finally:  # what was done is reported also when the run ends with an error
        for name, day in sorted(done.days.items()):
            context.log_event(_event(backends, name, day))
    context.add_output_metadata(figures_of(done))


@dg.job(
    description="process-image-queue: the listings' waiting images become WebP at the URLs already handed out.",
    tags=run_tags("listings", CPU, group="listings"),
)
def process_image_queue() -> None:
    drain_image_queue()


listing_images_backfill = dg.define_asset_job(
    "listing_images_backfill",
    selection=dg.AssetSelection.assets(listing_images),
    tags=run_tags("listing_images_backfill", CPU, group="listings"),
    description="Makes the images of the chosen days of upload again from the kept originals.",
)


def _event(backends: BackendsResource, name: str, day: "Day") -> dg.AssetMaterialization | dg.AssetObservation:
    """What the asset's page shows of a run for one day; a day that got no image is not called materialized."""
    counts = {"processed": day.processed, "failed": day.failed}
    if not day.processed:
        return dg.AssetObservation(listing_images.key, partition=name, metadata=counts)
    examples = gallery(backends, day.examples)
    return dg.AssetMaterialization(listing_images.key, partition=name, metadata={**counts, "examples": examples})
