"""The avatars' jobs: people, pictures, daily housekeeping."""

import dagster as dg

from imgpipe_orchestration.avatars.assets import DAILY, avatar_personas, avatar_pictures
from imgpipe_orchestration.dagster_side.run_tags import NETWORK, PAID, run_tags

# Two values of `pipeline`, so that a data run and an image run can run at the same time.
avatar_data = dg.define_asset_job(
    "avatar_data",
    selection=dg.AssetSelection.assets(avatar_personas),
    tags=run_tags("avatar_data", PAID, group="avatars"),
    description="pending -> generating-data -> data-generated: invents the people of tasks that are due.",
)

avatar_images = dg.define_asset_job(
    "avatar_images",
    selection=dg.AssetSelection.assets(avatar_pictures),
    tags=run_tags("avatar_images", PAID, group="avatars"),
    description="data-generated -> generating-images -> completed or failed: the seven steps for people who are due.",
)

avatar_daily = dg.define_asset_job(
    "avatar_daily",
    selection=dg.AssetSelection.assets(*DAILY).without_checks(),
    tags=run_tags("avatar_daily", NETWORK, group="avatars"),
    description="Figures by day, and images of cancelled and failed tasks removed after a week.",
)

avatar_checks = dg.define_asset_job(
    "avatar_checks",
    selection=dg.AssetSelection.checks_for_assets(*DAILY),
    tags=run_tags("avatar_checks", NETWORK, group="avatars"),
    description="The asset checks of the avatars.",
)
