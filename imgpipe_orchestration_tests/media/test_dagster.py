"""What becomes of images when somebody materializes some of the five assets only."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
import pytest

from imgpipe_orchestration import resources
from imgpipe_orchestration.media import store
from imgpipe_orchestration.media.definitions import definitions
from imgpipe_orchestration_tests.media.conftest import Gateway, picture

STEPS = ["retrieve_file", "ai_visual_analysis", "resize_optimize"]


@pytest.fixture
def repository(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> dg.Definitions:
    for name, value in gateway.settings.environment().items():
        monkeypatch.setenv(name, value)
    return dg.Definitions.merge(
        definitions, dg.Definitions(resources=resources.build(), executor=dg.in_process_executor)
    )


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.mark.parametrize("many", [1, 2, 3])
def test_a_run_of_the_first_steps_only_leaves_its_image_to_the_next_run_without_a_stain(
    gateway: Gateway, repository: dg.Definitions, instance: dg.DagsterInstance, many: int
) -> None:
    gateway.upload(456, profile_image=picture())
    job = repository.resolve_job_def("media_pipeline")
    today = datetime.now(UTC).date().isoformat()
    chosen = [dg.AssetKey(name) for name in STEPS[:many]]
    result = job.execute_in_process(instance=instance, partition_key=today, asset_selection=chosen)
    (first,) = result.asset_materializations_for_node("retrieve_file")
    assert first.metadata["claimed"].value == 1
    (claim,) = gateway.services.claims.claim(store.MEDIA, "next", 10, partition=today)
    assert (claim.failures, claim.losses) == (0, 0)
    gateway.services.claims.release("next")
    rest = job.execute_in_process(instance=instance, partition_key=today)
    assert rest.success
    assert [tuple(row) for row in gateway.rows("select status from pending_images")] == [("complete",)]
