"""The assets of vision reports. Runs report materializations for each day of creation of what they delivered."""

import dagster as dg

from imgpipe_orchestration.dagster_side.assets import OWNERS
from imgpipe_orchestration.vision_reports.model import FIRST_DAY

DAYS = dg.DailyPartitionsDefinition(start_date=FIRST_DAY, end_offset=1)
"""Days on which analyses were created, UTC; today among them."""

ANALYSES = dg.AssetKey(["vision_reports", "analyses"])

analyses = dg.AssetSpec(
    key=ANALYSES,
    description="Analyses that the external Vision Analysis API lists as unprocessed.",
    group_name="vision_reports",
    kinds={"json"},
    owners=OWNERS,
)

REPORTS = dg.AssetKey(["vision_reports", "reports"])

reports = dg.AssetSpec(
    key=REPORTS,
    deps=[analyses],
    description=(
        "HTML reports delivered to the external API, by the day their analyses were created. The job `vision_reports` "
        "delivers them, `vision_reports_backfill` a day's again."
    ),
    group_name="vision_reports",
    kinds={"openai", "html"},
    owners=OWNERS,
    partitions_def=DAYS,
)
