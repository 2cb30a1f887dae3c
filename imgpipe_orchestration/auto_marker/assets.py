"""The asset `clean_images`: approved news images, one partition per customer; and the jobs around it."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import dagster as dg

from imgpipe_orchestration.auto_marker import runs
from imgpipe_orchestration.auto_marker.model import Figures, customer_of, partition_key
from imgpipe_orchestration.auto_marker.store import create_indexes
from imgpipe_orchestration.dagster_side.assets import is_asked_for, is_the_sensors, no_partition, shown
from imgpipe_orchestration.dagster_side.run_tags import NETWORK, run_tags
from imgpipe_orchestration.dagster_side.sensors import owner_of
from imgpipe_orchestration.resources import BackendsResource

CUSTOMERS = dg.DynamicPartitionsDefinition(name="customers")
"""One partition for each customer; see `model.partition_key` for its keys."""

news_document = dg.AssetSpec(
    "news_document",
    kinds={"mongodb"},
    description="The news as the customers' systems write them: a document each, with its image and its summary.",
)


@dg.asset(
    deps=[news_document],
    partitions_def=CUSTOMERS,
    output_required=False,
    kinds={"mongodb", "python"},
    description=(
        "News documents with `clean_image` set by the auto-marker, by customer. A run of the sensor covers everybody "
        "who asked, and every JOB_INTERVAL_MINUTES everybody with pending images: AUTO_MARK_BATCH_SIZE each, oldest "
        "first. Materializing a partition marks all that is pending of the customer, unless `auto_mark_cleaned` is off."
    ),
)
def clean_images(context: dg.AssetExecutionContext, backends: BackendsResource) -> Iterator[dg.MaterializeResult[Any]]:
    services, asked = backends.services, is_asked_for(context)
    for problem in create_indexes(services.documents):
        context.log.warning(f"an index is missing: {problem}")
    owner, own = owner_of(services, context.run), list[Figures]()
    if asked:
        if not context.instance.has_dynamic_partition(str(CUSTOMERS.name), context.partition_key):
            raise no_partition(context, "they appear after a customer's first auto-marker run or the nightly sync")
        runs.mark_all_of(services, customer_of(context.partition_key), owner, own.append)
    else:
        customers, unusable = list[str](), 0
        if not is_the_sensors(context) or runs.is_time(services):
            customers, unusable = runs.begin_round(services)
        if unusable:
            context.log.warning(f"{unusable} pending documents have a customer_id that cannot be a customer's")
        outcome = runs.mark_round(services, customers, owner, partial(_tell, context))
        for number, reason in (outcome.retried | outcome.failed).items():
            context.log.error(f"job {number}: {reason}")
    for figures in own:
        _log_trouble(context, figures)
        if figures.broken:
            raise dg.Failure(f"{figures.customer_id}: {figures.trouble}", metadata=_shown(figures), allow_retries=False)
        yield dg.MaterializeResult(metadata=shown(_shown(figures)))


def _tell(context: dg.AssetExecutionContext, figures: Figures) -> None:
    """Report at once, not at the end of the run: downstream assets need not wait for other customers."""
    _log_trouble(context, figures)
    key = partition_key(figures.customer_id)
    context.instance.add_dynamic_partitions(str(CUSTOMERS.name), [key])
    # A materialization starts downstream work. A dead run that had begun the job may have marked images.
    event = dg.AssetMaterialization if figures.marked or figures.again else dg.AssetObservation
    context.log_event(event(asset_key=clean_images.key, partition=key, metadata=shown(_shown(figures))))


def _log_trouble(context: dg.AssetExecutionContext, figures: Figures) -> None:
    if figures.trouble:
        context.log.error(f"{figures.customer_id:.80}: {figures.trouble}")


def _shown(figures: Figures) -> dict[str, Any]:
    """A customer's figures as metadata of the partition."""
    told: dict[str, Any] = {
        "customer": figures.customer_id,
        "found": figures.found,
        "marked": figures.marked,
        "failed": figures.failed,
        "seconds": round(figures.seconds, 3),
    }
    more = {"job_id": figures.job_id and str(figures.job_id), "note": figures.note, "error": figures.trouble}
    return told | {name: value for name, value in more.items() if value}


auto_marker = dg.define_asset_job(
    "auto_marker",
    selection=dg.AssetSelection.assets(clean_images).without_checks(),  # the check is over all customers
    tags=run_tags("auto_marker", NETWORK, group="auto_marker"),
    description="Marks news images. A backfill marks everything pending of the customers whose partitions are chosen.",
)

auto_marker_checks = dg.define_asset_job(
    "auto_marker_checks",
    selection=dg.AssetSelection.checks_for_assets(clean_images),
    tags=run_tags("auto_marker_checks", NETWORK, group="auto_marker"),
    description="Checks that the documents marked last have what the voice generator needs.",
)


@dg.op(description="Adds customers who have an `image_config`, removes those who have neither that nor a document.")
def follow_customers(context: dg.OpExecutionContext, backends: BackendsResource) -> None:
    name = str(CUSTOMERS.name)
    new, gone = runs.out_of_step(backends.services, context.instance.get_dynamic_partitions(name))
    if new:
        context.instance.add_dynamic_partitions(name, new)
    for key in gone:
        context.instance.delete_dynamic_partition(name, key)
    context.add_output_metadata({"added": len(new), "removed": len(gone), "examples": [*new[:5], *gone[:5]]})


@dg.job(
    description="Keeps the partitions of `clean_images` in step with MongoDB's collection `image_config`.",
    tags=run_tags("auto_marker_customers", NETWORK, group="auto_marker"),
)
def auto_marker_customers() -> None:
    follow_customers()
