"""The listings' images as an asset with one partition per day of upload.

A run of the sensor works on what is due of any day. A run that somebody asked for makes its day's images again from the
kept originals.
"""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from imgpipe_orchestration.dagster_side.assets import OWNERS, day_of, is_asked_for, reported
from imgpipe_orchestration.dagster_side.run_tags import CPU, run_tags
from imgpipe_orchestration.dagster_side.sensors import owner_of
from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration.settings import first_day

if TYPE_CHECKING:
    from imgpipe_orchestration.listings.drain import Drained

DAYS = dg.DailyPartitionsDefinition(start_date=first_day(), end_offset=1)
"""Days of upload (UTC), today included. No upload is older than the first: the database's clock dates them."""

image_queue = dg.AssetSpec(
    "image_queue",
    group_name="listings",
    owners=OWNERS,
    kinds={"postgres", "s3"},
    description="Uploads of listings as the gateway takes them in: a row and a kept original for each.",
)


@dg.asset(
    deps=[image_queue],
    partitions_def=DAYS,
    output_required=False,
    group_name="listings",
    kinds={"webp", "s3"},
    owners=OWNERS,
    description="WebP at the URLs that uploads were answered with, by day of upload. Materializing makes them again.",
)
def listing_images(
    context: dg.AssetExecutionContext, backends: BackendsResource
) -> Iterator[dg.MaterializeResult[Any]]:
    from imgpipe_orchestration.listings import drain

    services, day = backends.services, day_of(context, DAYS)
    owner, done = owner_of(services, context.run), drain.Drained()
    told: dict[str, Any] = {}
    try:
        if is_asked_for(context):
            told["made_again"] = drain.make_again(services, owner, day, done)
        else:
            drain.run(services, owner, done)
    finally:  # what was done is reported also when the run ends with an error
        made = Counter(claim.partition for claim in done.made)
        days = {name: {"processed": made[name], "examples": _examples(backends, done, name)} for name in made}
        # Without `errors` where there are none, as other pipelines have it.
        told |= {name: value for name, value in done.as_json().items() if value != []}
        own = {**told, **days.pop(day, {})}
        yield from reported(context, listing_images.key, own, own=day, made=day in made, others=days)


process_image_queue = dg.define_asset_job(
    "process_image_queue",
    selection=dg.AssetSelection.assets(listing_images),
    tags=run_tags("listings", CPU, group="listings"),
    description="process-image-queue: the listings' waiting images become WebP at the URLs already handed out. A "
    "backfill makes the images of the chosen days again from the kept originals.",
)


def _examples(backends: BackendsResource, done: "Drained", day: str) -> dg.MarkdownMetadataValue:
    """The first few images that a run made of a day, small, with links to them."""
    from imgpipe_orchestration.imaging import contact_sheet

    base = backends.services.settings.listings_public_url
    examples = [(name, picture) for of, name, picture in done.examples if of == day]
    links = ", ".join(f"[{name}]({base}/{name})" for name, _ in examples)
    return dg.MetadataValue.md(contact_sheet.markdown([picture for _, picture in examples], links))
