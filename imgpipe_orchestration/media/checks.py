"""Asset checks: missing variants, missing objects, and callbacks that were not acknowledged."""

from typing import Any

import dagster as dg

from imgpipe_orchestration.resources import BackendsResource

SHOWN = 50
"""Ids listed in a check's metadata."""


def _result(found: list[Any], **more: Any) -> dg.AssetCheckResult:
    metadata = {"found": len(found), **more}
    if found:
        metadata["which"] = ", ".join(str(one) for one in found[:SHOWN])
    return dg.AssetCheckResult(passed=not found, metadata=metadata)


@dg.asset_check(
    asset="resize_optimize",
    description="Every finished image has every size, in a format that every browser shows (last seven days).",
)
def finished_images_have_every_size(backends: BackendsResource) -> dg.AssetCheckResult:
    from imgpipe_orchestration.media.audit import incomplete

    return _result(incomplete(backends.services))


@dg.asset_check(
    asset="resize_optimize",
    description="Originals and variants of the last seven days are in the object store (a random 5,000 of them).",
)
def named_objects_are_stored(backends: BackendsResource) -> dg.AssetCheckResult:
    from imgpipe_orchestration.media.audit import missing_objects

    looked_at, missing = missing_objects(backends.services)
    return _result(missing, looked_at=looked_at)


@dg.asset_check(
    asset="update_callback",
    description="No image waits for more than an hour for the main API's acknowledgement, or was given up over it.",
)
def callbacks_are_acknowledged(backends: BackendsResource) -> dg.AssetCheckResult:
    from imgpipe_orchestration.media.audit import unacknowledged

    return _result(unacknowledged(backends.services))


CHECKS = [finished_images_have_every_size, named_objects_are_stored, callbacks_are_acknowledged]
