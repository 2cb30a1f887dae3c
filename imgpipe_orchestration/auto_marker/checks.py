"""The asset check of `clean_images`."""

import dagster as dg

from imgpipe_orchestration.auto_marker.assets import clean_images
from imgpipe_orchestration.resources import BackendsResource

MOST_NAMED = 20


@dg.asset_check(
    asset=clean_images,
    description="Every document the auto-marker marked has what the voice generator needs: a clean image, a summary.",
)
def marked_images_are_usable(backends: BackendsResource) -> dg.AssetCheckResult:
    from imgpipe_orchestration.auto_marker.store import News

    lacking = News(backends.services.documents).lacking(limit=MOST_NAMED)
    rows = [
        dg.TableRecord({"document": str(d["_id"]), "customer": str(d.get("customer_id")), "lacks": d["lacks"]})
        for d in lacking
    ]
    return dg.AssetCheckResult(
        passed=not lacking,
        metadata={"lacking": dg.MetadataValue.table(rows)} if rows else {"lacking": 0},
    )
