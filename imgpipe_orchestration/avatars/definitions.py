"""The avatars' part of the Dagster definitions."""

import dagster as dg

from imgpipe_orchestration.avatars.assets import DAILY, avatar_personas, avatar_pictures, generation_tasks
from imgpipe_orchestration.avatars.checks import avatar_tasks_move
from imgpipe_orchestration.avatars.jobs import avatar_checks, avatar_daily, avatar_data, avatar_images
from imgpipe_orchestration.avatars.schedules import avatar_checks_schedule, avatar_daily_schedule
from imgpipe_orchestration.avatars.sensors import avatar_data_sensor, avatar_images_sensor

definitions = dg.Definitions(
    assets=[generation_tasks, avatar_personas, avatar_pictures, *DAILY],
    asset_checks=[avatar_tasks_move],
    jobs=[avatar_data, avatar_images, avatar_daily, avatar_checks],
    sensors=[avatar_data_sensor, avatar_images_sensor],
    schedules=[avatar_daily_schedule, avatar_checks_schedule],
)
