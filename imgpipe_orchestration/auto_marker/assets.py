"""The asset `clean_images`: approved news images, one partition per customer."""

from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg

from imgpipe_orchestration.dagster_side.assets import OWNERS, partition_of
from imgpipe_orchestration.dagster_side.sensors import owner_of
from imgpipe_orchestration.resources import BackendsResource

if TYPE_CHECKING:
    from imgpipe_orchestration.auto_marker.model import Figures

CUSTOMERS = dg.DynamicPartitionsDefinition(name="customers")
"""One partition for each customer; see `model.partition_key` for its keys."""

news_document = dg.AssetSpec(
    "news_document",
    group_name="auto_marker",
    owners=OWNERS,
    kinds={"mongodb"},
    description="The news as the customers' systems write them: a document each, with its image and its summary.",
)


def metadata_of(figures: "Figures") -> dict[str, Any]:
    """A customer's figures as metadata of the partition."""
    shown: dict[str, Any] = {
        "customer": figures.customer_id,
        "found": figures.found,
        "marked": figures.marked,
        "failed": figures.failed,
        "seconds": round(figures.seconds, 3),
    }
    if figures.job_id:
        shown["job_id"] = str(figures.job_id)
    if figures.note:
        shown["note"] = figures.note
    if figures.trouble:
        shown["error"] = figures.trouble
    return shown


@dg.asset(
    deps=[news_document],
    partitions_def=CUSTOMERS,
    group_name="auto_marker",
    kinds={"mongodb", "python"},
    owners=OWNERS,
    description=(
        "News documents with `clean_image` set by the auto-marker, by customer. The job `auto_marker` adds to it every "
        "JOB_INTERVAL_MINUTES and on demand; materializing a partition here is a backfill: it marks everything pending "
        "of that customer, without a batch limit (and nothing where `auto_mark_cleaned` is off)."
    ),
)
def clean_images(context: dg.AssetExecutionContext, backends: BackendsResource) -> dg.MaterializeResult[Any]:
    from imgpipe_orchestration.auto_marker import steps
    from imgpipe_orchestration.auto_marker.model import customer_of

    is_known = partial(context.instance.has_dynamic_partition, str(CUSTOMERS.name))
    added = "partitions appear after a customer's first auto-marker run or the nightly sync"
    customer = customer_of(partition_of(context, is_known, added))
    todo = steps.plan(backends.services, scheduled=False, customers=[customer])
    (figures,) = steps.carry_out(backends.services, todo, owner_of(backends.services, context.run), batch_size=None)
    if figures.broken:
        raise dg.Failure(f"{customer}: {figures.trouble}", metadata=metadata_of(figures), allow_retries=False)
    if figures.trouble:
        context.log.error(f"{customer}: {figures.trouble}")
    return dg.MaterializeResult(metadata=metadata_of(figures))
