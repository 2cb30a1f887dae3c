"""The media pipeline's part of the Dagster definitions."""

import dagster as dg

from imgpipe_orchestration.media.assets import ASSETS
from imgpipe_orchestration.media.jobs import media_pipeline
from imgpipe_orchestration.media.sensors import pending_images_sensor

definitions = dg.Definitions(assets=ASSETS, jobs=[media_pipeline], sensors=[pending_images_sensor])
