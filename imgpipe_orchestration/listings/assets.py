"""The listings' images as an asset with one partition per day of upload.

A run of the sensor works on what is due of any day. A run that somebody asked for makes its day's images again from the
kept originals.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import dagster as dg

from imgpipe_orchestration.billing.tally import tallied
from imgpipe_orchestration.dagster_side.assets import DAYS, day_of, is_asked_for, reported
from imgpipe_orchestration.dagster_side.run_tags import CPU, run_tags
from imgpipe_orchestration.dagster_side.sensors import owner_of
from imgpipe_orchestration.resources import BackendsResource

image_queue = dg.AssetSpec(
    "image_queue",
    kinds={"postgres", "s3"},
    description="Uploads of listings as the gateway takes them in: a row and a kept original for each.",
)


@dg.asset(
    deps=[image_queue],
    partitions_def=DAYS,
    output_required=False,
    kinds={"webp", "s3"},
    description="WebP at the URLs that uploads were answered with, by day of upload. Materializing makes them again.",
)
def listing_images(
    context: dg.AssetExecutionContext, backends: BackendsResource
) -> Iterator[dg.MaterializeResult[Any]]:
    from imgpipe_orchestration.listings import runs

    services, day = backends.services, day_of(context, DAYS)
    owner, done = owner_of(services, context.run), runs.Drained()
    told: dict[str, Any] = {}
    try:
        with tallied() as paid:
            if is_asked_for(context):
                told["made_again"] = runs.make_again(services, owner, day, done)
            else:
                runs.run(services, owner, done)
    finally:  # what was done is reported also when the run ends with an error
        made = Counter(claim.partition for claim in done.made)
        # No addresses: a listing's title is in them, and Dagster keeps what is told here when its person is erased.
        days: dict[str, dict[str, Any]] = {name: {"processed": count} for name, count in made.items()}
        # Without `errors` where there are none, as other pipelines have it.
        told |= {name: value for name, value in done.as_json().items() if value != []}
        own = {**told, **paid.figures(), **days.pop(day, {})}
        yield from reported(context, listing_images.key, own, own=day, made=day in made, others=days)


process_image_queue = dg.define_asset_job(
    "process_image_queue",
    selection=dg.AssetSelection.assets(listing_images),
    tags=run_tags("listings", CPU, group="listings"),
    description="process-image-queue: the listings' waiting images become WebP at the URLs already handed out. A "
    "backfill makes the images of the chosen days again from the kept originals.",
)
