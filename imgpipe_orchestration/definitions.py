"""What Dagster loads: the features, merged, over one set of resources."""

import warnings

import dagster as dg

from imgpipe_orchestration import resources
from imgpipe_orchestration.auto_marker import definitions as auto_marker
from imgpipe_orchestration.avatars import definitions as avatars
from imgpipe_orchestration.dagster_side import alerts, sensors
from imgpipe_orchestration.listings import definitions as listings
from imgpipe_orchestration.media import definitions as media
from imgpipe_orchestration.operations import definitions as operations
from imgpipe_orchestration.vision_reports import definitions as vision_reports

# Dagster itself passes `owners`, and would warn of that in each run and each command.
warnings.filterwarnings("ignore", "Parameter `owners` of initializer `SensorDefinition", dg.BetaWarning)

# Dagster takes the one Definitions it finds at the top of this module: the features' own stay in theirs.
defs = dg.Definitions.merge(
    auto_marker.definitions,
    avatars.definitions,
    listings.definitions,
    media.definitions,
    operations.definitions,
    vision_reports.definitions,
    dg.Definitions(
        resources=resources.build(),
        sensors=[sensors.claims_of_failed_runs, sensors.claims_of_cancelled_runs, *alerts.SENSORS],
        # Stages find their work in the database and parallelise inside; a process per step would only add start-up.
        executor=dg.in_process_executor,
    ),
)
