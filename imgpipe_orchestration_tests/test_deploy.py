"""The files in deploy/, as far as they can be checked without a container runtime and without a cluster."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from sqlalchemy import make_url, text

from imgpipe_orchestration.avatars.model import PUBLIC_KEYS
from imgpipe_orchestration.dagster_side.run_tags import QUEUE_TAG, QUEUES
from imgpipe_orchestration.dagster_side.worker import GRACE_SECONDS, KILLED_AFTER_SECONDS
from imgpipe_orchestration.definitions import defs
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.rows import connect
from imgpipe_orchestration_tests.lacking import lacking

DEPLOY = Path(__file__).parents[1] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.[st]*"))
KNOWN = {name.upper() for name in Settings.model_fields}
OF_BOTO3 = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
OF_CONTAINERS = {
    *("POSTGRES_PASSWORD", "MINIO_PASSWORD", "REDIS_PASSWORD", "MONGO_PASSWORD"),
    *("FORWARDED_ALLOW_IPS", "DAGSTER_HOME"),
}
BESIDE_PYTHON = Path(sys.executable).parent


def loaded(*path: str) -> Any:
    return yaml.safe_load(DEPLOY.joinpath(*path).read_text())


@pytest.fixture
def with_schema(settings: Settings) -> Settings:
    """Settings whose database has the schema for Dagster's tables."""
    engine = connect(settings.database_url)
    with engine.begin() as connection:
        connection.execute(text("create schema dagster"))
    engine.dispose()
    return settings


def test_dagster_itself_takes_the_production_configuration(
    with_schema: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_PG_URL", with_schema.dagster_pg_url)
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://127.0.0.1:6379/0")
    shutil.copy(DEPLOY / "dagster.yaml", tmp_path / "dagster.yaml")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.get_runs_count() == 0
        assert type(instance.run_launcher).__name__ == "WorkersRunLauncher"


def test_dagster_takes_the_database_as_the_chart_writes_it(with_schema: Settings, tmp_path: Path) -> None:
    """The chart's own storage, in our image: pods that run code have no class of ours for it."""
    postgresql = loaded("helm", "values.yaml")["postgresql"]
    url = make_url(with_schema.database_url)
    database = {
        "username": url.username,
        "password": url.password or "none",
        "hostname": url.host,
        "port": url.port,
        "db_name": url.database,
        "params": {"options": "-csearch_path=dagster"},
        "scheme": postgresql["postgresqlScheme"],
    }
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump({"storage": {"postgres": {"postgres_db": database}}}))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert nothing.execute_in_process(instance=instance).success, "its first event says NOTIFY"


@dg.job
def nothing() -> None:
    """No ops."""


@pytest.mark.parametrize("file", [DEPLOY.parent / "dagster.yaml", DEPLOY / "dagster.yaml"], ids=["one", "several"])
def test_what_is_due_finds_a_place_beside_a_backfill_of_a_hundred_days(file: Path, tmp_path: Path) -> None:
    """As the UI starts one: its runs are of no job of ours and carry no tags of ours."""
    concurrency = yaml.safe_load(file.read_text())["concurrency"]
    coordinator = {"module": "dagster", "class": "QueuedRunCoordinator"}
    (tmp_path / "dagster.yaml").write_text(
        yaml.safe_dump({"concurrency": concurrency, "run_coordinator": coordinator, "telemetry": {"enabled": False}})
    )

    location = RegisteredCodeLocationOrigin("imgpipe")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), "nothing")

    def queued(**tags: str) -> str:
        python = dg.reconstructable(nothing).get_python_origin()
        waiting = dg.DagsterRunStatus.QUEUED
        return instance.create_run_for_job(
            nothing, status=waiting, tags=tags, remote_job_origin=origin, job_code_origin=python
        ).run_id

    with (
        dg.DagsterInstance.from_config(str(tmp_path)) as instance,
        QueuedRunCoordinatorDaemon(interval_seconds=1) as daemon,
    ):
        for _ in range(100):
            queued(**{"dagster/backfill": "abcdefgh"})
        due = queued(pipeline="listings")
        begun = daemon._get_runs_to_dequeue(instance, instance.get_concurrency_config(), None)
    assert due in {run.run_id for run in begun}
    assert len(begun) <= concurrency["runs"]["max_concurrent_runs"] / 2 + 1


def test_every_queue_of_a_job_has_workers() -> None:
    tagged = {job.tags.get(QUEUE_TAG) for job in defs.resolve_all_job_defs() if not job.name.startswith("__")}
    assert tagged == set(QUEUES)
    commands = [service.get("command", []) for service in loaded("compose.yaml")["services"].values()]
    taken = {words[words.index("--queues") + 1] for words in commands if "--queues" in words}
    assert taken == set(QUEUES)
    wanted = (DEPLOY / "systemd" / "imgpipe.target").read_text()
    assert set(re.findall(r"imgpipe-worker@(\w+)\.service", wanted)) == set(QUEUES)


def test_who_has_runs_is_left_the_time_that_they_need_to_end() -> None:
    units = [(DEPLOY / "systemd" / f"imgpipe-{name}.service").read_text() for name in ("worker@", "daemon")]
    given = [re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE) for unit in units]
    given += [
        [service["stop_grace_period"].removesuffix("s")]
        for service in loaded("compose.yaml")["services"].values()
        if "--queues" in service.get("command", [])
    ]
    assert len(given) == len(units) + len(QUEUES)
    assert all(int(seconds) > GRACE_SECONDS + KILLED_AFTER_SECONDS for (seconds,) in given)


@pytest.mark.parametrize(
    "words",
    [
        ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml"],
        [
            "kubernetes-validate",
            "--strict",
            "--quiet",
            *(DEPLOY / "kubernetes" / f"{name}.yaml" for name in ("gateway", "migrate")),
        ],
        ["hadolint", DEPLOY / "Containerfile"],
    ],
    ids=["compose", "kubernetes", "image"],
)
def test_those_who_know_the_format_have_nothing_to_say(words: list[str | Path]) -> None:
    checked([BESIDE_PYTHON / words[0], *words[1:]])


def test_prometheus_takes_its_configuration_and_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        lacking("promtool", "make test-servers")
    watching, cases = DEPLOY / "prometheus", Path(__file__).with_name("alert_rules_test.yaml")
    checked(["promtool", "check", "config", "--syntax-only", watching / "prometheus.yml"])
    for file in (watching / "alerts.yaml", cases):
        shutil.copy(file, tmp_path)
    checked(["promtool", "test", "rules", tmp_path / cases.name])
    said = cases.read_text()
    for group in loaded("prometheus", "alerts.yaml")["groups"]:
        assert [rule["alert"] for rule in group["rules"] if rule["alert"] not in said] == []


def checked(command: list[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_store_of_compose_asks_for_a_password() -> None:
    services = loaded("compose.yaml")["services"]
    for name in ("postgres", "minio", "redis", "mongo"):
        assert any("PASSWORD:?}" in str(value) for value in services[name]["environment"].values()), name
    assert not any("PASSWORD" in str(service.get("command")) for service in services.values()), "`ps` shows it"
    for name in ("DATABASE_URL", "MONGODB_URL", "S3_SECRET_KEY", "CELERY_BROKER_URL"):
        assert "PASSWORD:?}" in services["gateway"]["environment"][name]


def test_compose_gives_strangers_nothing_but_the_proxy() -> None:
    for name, service in loaded("compose.yaml")["services"].items():
        ports = [port for port in service.get("ports", ()) if not port.startswith("127.0.0.1:")]
        assert ports == (["8000:8000", "9000:9000"] if name == "proxy" else []), name


def test_every_variable_that_is_set_is_a_setting() -> None:
    written = set(re.findall(r"^([A-Z0-9_]+)=", (DEPLOY / "example.env").read_text(), re.MULTILINE))
    written |= set(loaded("compose.yaml")["services"]["gateway"]["environment"])
    for unit in UNITS:
        for line in re.findall(r"^Environment=(.*)$", unit.read_text(), re.MULTILINE):
            written |= set(re.findall(r"([A-Z0-9_]+)=", line))
    assert written - OF_CONTAINERS - OF_BOTO3 <= KNOWN


def test_what_dagster_yaml_reads_is_in_the_example_or_named_beside_it() -> None:
    read = set(re.findall(r"env: (\w+)", (DEPLOY / "dagster.yaml").read_text())) | OF_BOTO3
    told = (DEPLOY / "example.env").read_text() + (DEPLOY / "README.md").read_text()
    assert read - set(re.findall(r"\w+", told)) == set()


def test_the_containers_make_every_bucket_and_the_readme_names_it() -> None:
    logs = loaded("dagster.yaml")["compute_logs"]["config"]["bucket"]
    (made,) = re.findall(r"mc mb --ignore-existing (.*) &&", (DEPLOY / "compose.yaml").read_text())
    buckets = (*Settings().buckets, logs)
    assert {f"store/{name}" for name in buckets} == set(made.split())
    told = (DEPLOY / "README.md").read_text()
    assert [name for name in buckets if f"`{name}`" not in told] == []


def test_strangers_read_the_avatars_of_the_containers_and_list_nothing() -> None:
    buckets, policy = loaded("compose.yaml")["services"]["buckets"], "avatars-policy.json"
    assert f"./{policy}:/{policy}:ro" in buckets["volumes"]
    given = re.findall(r"mc anonymous (.*)", buckets["command"][0])
    assert given == [f"set-json /{policy} store/{Settings().s3_bucket_name}"]
    (rule,) = json.loads((DEPLOY / policy).read_text())["Statement"]
    finished = [f"arn:aws:s3:::{Settings().s3_bucket_name}/{key}" for key in PUBLIC_KEYS]
    assert (rule["Action"], rule["Resource"]) == (["s3:GetObject"], finished)


def test_kubernetes_manifests_fit_together() -> None:
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "gateway.yaml").read_text()))
    kinds = {document["kind"]: document for document in documents}
    pods = kinds["Deployment"]["spec"]["template"]
    assert kinds["Service"]["spec"]["selector"] == pods["metadata"]["labels"]
    assert kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == pods["metadata"]["labels"]
    # Kubernetes sets a variable for each Service in every pod of the namespace.
    values = loaded("helm", "values.yaml")
    services = [kinds["Service"]["metadata"]["name"], "dagster-" + values["dagsterWebserver"]["nameOverride"]]
    services += [one["name"] for one in values["dagster-user-deployments"]["deployments"]]
    assert not {name.replace("-", "_") + "_port" for name in services} & set(Settings.model_fields)
    (container,) = pods["spec"]["containers"]
    for probe in ("readinessProbe", "livenessProbe"):  # MongoDB's absence must stop no pictures, and a hung one accepts
        assert container[probe]["httpGet"]["path"] == "/health/live"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for unit in UNITS:
        # The programs are not installed on this machine, and there is no user of that name.
        written = re.sub(r"^(ExecStart\w*=)/\S+", r"\1/bin/true", unit.read_text(), flags=re.MULTILINE)
        (tmp_path / unit.name).write_text(re.sub(r"^User=.*$", "User=root", written, flags=re.MULTILINE))
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *sorted(tmp_path.glob("imgpipe*"))],
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in checked.stderr.splitlines() if "imgpipe" in line]
    assert complaints == []
    assert checked.returncode == 0, checked.stderr
