"""Backfills that the Dagster UI starts, of each pipeline that makes its partitions again."""

from datetime import UTC, datetime, timedelta

import pytest

from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.end_to_end.conftest import Stack

LAUNCH = """
    mutation Launch($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
        ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }
"""
STATUS = """
    query Status($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }
"""


@pytest.mark.slow
def test_a_backfill_of_a_day_without_anything_to_make_ends_green(stack: Stack) -> None:
    """Dagster calls one failed of whose runs one has not materialized its partition."""
    day = str(datetime.now(UTC).date() - timedelta(days=200))
    selections = [["listing_images"], ["vision_reports", "reports"], ["vision_reports", "batches"], ["avatar_results"]]
    started = {}
    for path in selections:
        params = {"assetSelection": [{"path": path}], "partitionNames": [day]}
        launched = stack.graphql(LAUNCH, params=params)["launchPartitionBackfill"]
        started["/".join(path)] = launched["backfillId"]

    def ended() -> dict[str, str] | None:
        states = {
            name: stack.graphql(STATUS, id=backfill)["partitionBackfillOrError"]["status"]
            for name, backfill in started.items()
        }
        return None if {"REQUESTED", "COMPLETING"} & set(states.values()) else states

    states = wait_for(ended, "the backfills to end")
    assert set(states.values()) <= {"COMPLETED", "COMPLETED_SUCCESS"}, states
