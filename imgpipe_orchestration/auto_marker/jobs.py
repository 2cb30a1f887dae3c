"""The auto-marker's jobs: rounds, backfills, the check, and keeping the partitions up to date."""

from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from imgpipe_orchestration.auto_marker.assets import CUSTOMERS, clean_images, metadata_of
from imgpipe_orchestration.dagster_side.run_tags import NETWORK, run_tags
from imgpipe_orchestration.dagster_side.sensors import owner_of
from imgpipe_orchestration.resources import BackendsResource

if TYPE_CHECKING:
    from imgpipe_orchestration.auto_marker.model import Figures


class Round(dg.Config):
    """Which customers a run covers, and whether it marks everything."""

    scheduled: bool = Field(
        default=True, description="Cover every customer with pending images, beside those who asked."
    )
    customers: list[str] = Field(default=[], description="Cover exactly these customers instead.")
    everything: bool = Field(default=False, description="No batch limit: mark all that is pending (a backfill).")


@dg.op(description="Marks what is pending, customer by customer; reports each as a partition of `clean_images`.")
def mark_images(context: dg.OpExecutionContext, config: Round, backends: BackendsResource) -> None:
    from imgpipe_orchestration.auto_marker import steps
    from imgpipe_orchestration.auto_marker.store import create_indexes

    services = backends.services
    for problem in create_indexes(services.documents):
        context.log.warning(f"an index is missing: {problem}")
    todo = steps.plan(services, scheduled=config.scheduled, customers=config.customers)
    for whose, count in todo.nobody.items():
        context.log.warning(f"{count} pending documents have the unusable customer_id {whose}")
    limit = None if config.everything else services.settings.auto_mark_batch_size
    totals = {"customers": 0, "found": 0, "marked": 0, "failed": 0}
    troubled: list[dg.TableRecord] = []
    owner = owner_of(services, context.run)
    for figures in steps.carry_out(services, todo, owner, batch_size=limit, joining=True):
        _report(context, figures)
        totals["customers"] += 1
        totals["found"] += figures.found
        totals["marked"] += figures.marked
        totals["failed"] += figures.failed
        if figures.trouble:
            troubled.append(dg.TableRecord({"customer": figures.customer_id, "error": figures.trouble}))
    context.add_output_metadata(_summary(totals, troubled, todo.nobody))


def _report(context: dg.OpExecutionContext, figures: "Figures") -> None:
    """One event for each customer: a materialization, which starts downstream work, when something was marked; else an
    observation. A job that a dead run had begun is always a materialization: that run may have marked images."""
    from imgpipe_orchestration.auto_marker.model import has_partition, partition_key

    if not has_partition(figures.customer_id):  # of an older release: it must not stop the round of all others
        context.log.error(f"{figures.customer_id!r:.80} is no customer id: {figures.trouble or figures.note}")
        return
    key = partition_key(figures.customer_id)
    if not context.instance.has_dynamic_partition(str(CUSTOMERS.name), key):
        context.instance.add_dynamic_partitions(str(CUSTOMERS.name), [key])
    event = dg.AssetMaterialization if figures.marked or figures.again else dg.AssetObservation
    context.log_event(event(asset_key=clean_images.key, partition=key, metadata=metadata_of(figures)))
    if figures.trouble:
        context.log.error(f"{figures.customer_id}: {figures.trouble}")


def _summary(totals: dict[str, int], troubled: list[dg.TableRecord], nobody: dict[str, int]) -> dict[str, Any]:
    shown: dict[str, Any] = dict(totals)
    if troubled:
        shown["customers_in_trouble"] = dg.MetadataValue.table(troubled)
    if nobody:
        rows = [dg.TableRecord({"customer_id": whose, "pending": count}) for whose, count in nobody.items()]
        shown["unusable_customer_ids"] = dg.MetadataValue.table(rows)
    return shown


@dg.job(
    description=(
        "One round of the auto-marker over every customer with pending images and `auto_mark_cleaned` on, "
        "AUTO_MARK_BATCH_SIZE each, oldest first. Asked for by the sensor `auto_marker_sensor`; also the way to "
        "backfill one, several or all customers in a single run (see docs/auto_marker.md)."
    ),
    tags=run_tags("auto_marker", NETWORK, group="auto_marker"),
)
def auto_marker() -> None:
    mark_images()


@dg.op(description="Adds customers who have an `image_config`, removes those who have neither that nor a document.")
def follow_customers(context: dg.OpExecutionContext, backends: BackendsResource) -> None:
    from imgpipe_orchestration.auto_marker import steps

    name = str(CUSTOMERS.name)
    new, gone = steps.out_of_step(backends.services, context.instance.get_dynamic_partitions(name))
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


auto_marker_backfill = dg.define_asset_job(
    "auto_marker_backfill",
    selection=dg.AssetSelection.assets(clean_images).without_checks(),  # the check is over all customers
    tags=run_tags("auto_marker_backfill", NETWORK, group="auto_marker"),
    description="Marks everything pending of the customers whose partitions are chosen.",
)

auto_marker_checks = dg.define_asset_job(
    "auto_marker_checks",
    selection=dg.AssetSelection.checks_for_assets(clean_images),
    tags=run_tags("auto_marker_checks", NETWORK, group="auto_marker"),
    description="Checks that every marked document has what the voice generator needs.",
)
