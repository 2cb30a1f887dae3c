"""The listings pipeline's part of the Dagster definitions."""

import dagster as dg

from imgpipe_orchestration.listings import assets, jobs, sensors

definitions = dg.Definitions(
    assets=[assets.image_queue, assets.listing_images],
    jobs=[jobs.process_image_queue, jobs.listing_images_backfill],
    sensors=[sensors.process_image_queue_sensor],
)
