"""The vision reports' part of the Dagster definitions."""

import dagster as dg

from imgpipe_orchestration.vision_reports import assets, jobs, sensors
from imgpipe_orchestration.vision_reports.resources import VisionCrewResource

definitions = dg.Definitions(
    assets=[assets.analyses, assets.reports],
    jobs=[jobs.vision_reports, jobs.vision_reports_backfill, jobs.vision_batches],
    sensors=[sensors.vision_reports_sensor, sensors.vision_batches_sensor],
    resources={"vision_crew": VisionCrewResource()},
)
