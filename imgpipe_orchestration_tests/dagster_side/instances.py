"""Dagster instances over PostgreSQL with a launcher of ours, and what the tests ask of the runs in them."""

import sys
from pathlib import Path

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from sqlalchemy import make_url

from imgpipe_orchestration import resources
from imgpipe_orchestration.dagster_side.assets import DUE_ONLY
from imgpipe_orchestration.dagster_side.sensors import PRIORITY
from imgpipe_orchestration_tests.devstack.running import wait_for


def project(definitions: dg.Definitions) -> dg.Definitions:
    """A feature's definitions over our resources, as the root has them."""
    around = dg.Definitions(resources=resources.build(), executor=dg.in_process_executor)
    return dg.Definitions.merge(definitions, around)


def tick(sensor: dg.SensorDefinition, instance: dg.DagsterInstance) -> dg.SensorResult:
    """What a sensor of ours answers, over the settings of the environment."""
    with dg.build_sensor_context(instance, resources={"sensor_backends": resources.BackendsResource()}) as context:
        result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    assert all({**PRIORITY, DUE_ONLY: "true"}.items() <= one.tags.items() for one in result.run_requests or [])
    return result


def why_not(sensor: dg.SensorDefinition, instance: dg.DagsterInstance) -> str:
    """Why the sensor asks for no run."""
    result = tick(sensor, instance)
    assert result.skip_reason and not result.run_requests
    return str(result.skip_reason.skip_message)


def configure(home: Path, url: str, *lines: str) -> None:
    """Make a folder a DAGSTER_HOME with its storage in PostgreSQL; what `lines` add is YAML as well."""
    url = make_url(url).set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)
    storage = f"storage: {{postgres: {{postgres_url: '{url}'}}}}"
    (home / "dagster.yaml").write_text("\n".join([storage, "telemetry: {enabled: false}", *lines]))


def launch(instance: dg.DagsterInstance, job: dg.JobDefinition, python: str = sys.executable, **tags: str) -> str:
    """Hand a run to the launcher, as the daemon does when it takes one from its queue; its code belongs to `python`."""
    origin = dg.reconstructable(job).get_python_origin()
    origin = origin._replace(repository_origin=origin.repository_origin._replace(executable_path=python))
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("a location"), "a repository")
    asked = RemoteJobOrigin(repository, job.name)
    run = instance.create_run_for_job(
        job, remote_job_origin=asked, job_code_origin=origin, tags=tags, status=dg.DagsterRunStatus.STARTING
    )
    instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
    return run.run_id


def run_of(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run


def becomes(instance: dg.DagsterInstance, run_id: str, wanted: dg.DagsterRunStatus, seconds: float = 300) -> str:
    """Wait for that; returns the run's id."""
    wait_for(lambda: run_of(instance, run_id).status is wanted, f"the run to be {wanted.value}", seconds)
    return run_id


def health(instance: dg.DagsterInstance, run_id: str) -> WorkerStatus:
    """What the daemon's watch over runs is told."""
    found: CheckRunHealthResult = instance.run_launcher.check_run_worker_health(run_of(instance, run_id))
    return found.status


def told(instance: dg.DagsterInstance, run_id: str, *names: str) -> list[str]:
    """What the only step of a run put down in its output's metadata."""
    (entry,) = instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_OUTPUT)
    assert entry.dagster_event is not None
    metadata = entry.dagster_event.event_specific_data.metadata  # type: ignore[union-attr]
    return [str(metadata[name].value) for name in names]


def processes(instance: dg.DagsterInstance, run_id: str) -> tuple[int, ...]:
    """In which process a run of `jobs.quick` was carried out, and which one had forked that."""
    return tuple(map(int, told(instance, run_id, "pid", "parent")))
