"""The listings' images as an asset with one partition per day of upload.

The queue's runs log what they made here. Materializing a day makes its images again from the kept originals.
"""

from typing import TYPE_CHECKING, Any

import dagster as dg

from imgpipe_orchestration.dagster_side.assets import OWNERS, day_of, shown
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
    group_name="listings",
    kinds={"webp", "s3"},
    owners=OWNERS,
    description=(
        "WebP at the URLs that uploads were answered with, by day of upload. The job `process_image_queue` makes them; "
        "materializing makes a day's again."
    ),
)
def listing_images(context: dg.AssetExecutionContext, backends: BackendsResource) -> dg.MaterializeResult[None]:
    from imgpipe_orchestration.listings import control

    owner, day = owner_of(backends.services, context.run), day_of(context, DAYS)
    again, done = control.make_again(backends.services, owner, day)
    examples = done.days[day].examples
    pictures = {"examples": gallery(backends, examples)} if examples else {}
    return dg.MaterializeResult(metadata=shown({"made_again": again, **figures_of(done), **pictures}))


def figures_of(done: "Drained") -> dict[str, Any]:
    """What a run did, as metadata: without `errors` where there are none, as other pipelines have it."""
    return {name: value for name, value in done.as_json().items() if value != []}


def gallery(backends: BackendsResource, examples: list[tuple[str, bytes]]) -> dg.MarkdownMetadataValue:
    """The first few images of a day, small, with links to them."""
    from imgpipe_orchestration.imaging import contact_sheet
    from imgpipe_orchestration.listings.model import public_url

    base = backends.services.settings.listings_public_url
    links = ", ".join(f"[{name}]({public_url(base, name)})" for name, _ in examples)
    return dg.MetadataValue.md(contact_sheet.markdown([data for _, data in examples], links))
