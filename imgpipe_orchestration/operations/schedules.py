"""The schedules of the whole project."""

from imgpipe_orchestration.dagster_side.schedules import scheduled
from imgpipe_orchestration.operations.jobs import garbage_collection, retention

retention_schedule = scheduled(
    retention, "17 2 * * *", "Removes history past its retention by night, before the garbage collection."
)

garbage_collection_schedule = scheduled(
    garbage_collection,
    "47 2 * * *",
    "Deletes garbage by night, after the retention, which leaves objects without rows.",
    run_config={"ops": {"collect": {"config": {"delete": True}}}},
)
