"""The media pipeline as one job over its five assets; a partition is a day of upload."""

import dagster as dg

from imgpipe_orchestration.media.assets import ASSETS, days

media_pipeline = dg.define_asset_job(
    "media_pipeline",
    selection=ASSETS,
    partitions_def=days,
    tags={"pipeline": "media"},
    description="From upload to served variant. A backfill over days makes again what an older recipe made.",
)
