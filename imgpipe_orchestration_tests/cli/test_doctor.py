"""What `imgpipe doctor` finds wrong, and what it says to do about it."""

import json
import socket
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from sqlalchemy import Engine

from imgpipe_orchestration.auto_marker.store import create_indexes
from imgpipe_orchestration.cli.diagnosis import Verdict
from imgpipe_orchestration.cli.doctor import diagnose
from imgpipe_orchestration.devstack import stackfile
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage import heartbeats
from imgpipe_orchestration.storage.documents import Documents
from imgpipe_orchestration_tests.cli.conftest import Run
from imgpipe_orchestration_tests.conftest import S3Access, StandInAccess
from imgpipe_orchestration_tests.partners.wire import answering, pass_on, reply, serving
from imgpipe_orchestration_tests.parts import ensure_database


def finding(run: Run, what: str, **given: str) -> dict[str, str]:
    """What `imgpipe doctor` says of one thing, with these settings."""
    told = run("doctor", "--json", **given).stdout
    found: dict[str, str] = next(one for one in json.loads(told) if one["what"] == what)
    return found


def test_doctor_finds_a_full_object_store_that_still_answers_readers(settings: Settings, s3: S3Access) -> None:
    def full(handler: BaseHTTPRequestHandler, _: int) -> None:
        if handler.command == "PUT":
            reply(handler, b"<Error><Code>XMinioStorageFull</Code></Error>", 507)
        else:
            pass_on(handler, s3.endpoint)

    with serving(full) as server:
        findings = diagnose(settings.model_copy(update={"s3_endpoint": server.url}))
    found = next(one for one in findings if one.what == f"bucket {settings.media_bucket_name}")
    assert (found.verdict, "no room left" in found.seen) == (Verdict.BAD, True), found
    assert found.do.startswith("Make room on its disk")


def test_doctor_says_what_is_wrong_and_what_to_do(run: Run) -> None:
    result = run("doctor", "--json", GATEWAY_URL="http://127.0.0.1:9", DAGSTER_URL="http://127.0.0.1:9")
    assert result.exit_code == 1
    found = {one["what"]: one for one in json.loads(result.stdout)}
    assert found["database"]["verdict"] == "ok"
    assert [found[what]["verdict"] for what in found if what.startswith("bucket ")] == ["ok", "ok", "ok", "ok"]
    assert found["OpenAI"]["verdict"] == "note"
    assert found["gateway"]["verdict"] == "bad"
    assert "imgpipe up" in found["gateway"]["do"]
    assert found["Dagster UI"]["verdict"] == "bad"


def test_doctor_does_not_take_the_sign_in_before_dagsters_ui_for_dagsters_ui(run: Run) -> None:
    def proxy(handler: BaseHTTPRequestHandler, _: int) -> None:
        if handler.path == "/login":
            reply(handler)
        else:
            reply(handler, status=302, Location="/login")

    with serving(proxy) as server:
        found = finding(run, "Dagster UI", DAGSTER_URL=f"{server.url}/dagster")
    assert (found["verdict"], "a sign-in at" in found["seen"]) == ("note", True), found


def test_doctor_names_a_setting_that_only_a_run_would_stumble_over(run: Run) -> None:
    assert finding(run, "settings")["verdict"] == "ok"
    prices = finding(run, "settings", MODEL_PRICES="cheap")
    assert prices["verdict"] == "bad" and prices["seen"].startswith("MODEL_PRICES must look like")
    misspelt = finding(run, "settings", RETENTION_DYAS="1")
    assert misspelt["verdict"] == "note"
    assert misspelt["seen"] == "RETENTION_DYAS is not a setting; did you mean RETENTION_DAYS?"


def test_doctor_says_that_nobody_can_sign_in_without_a_client_id_or_roles(run: Run) -> None:
    for given, lacking in (
        ({"OIDC_ROLES": "{}"}, "OIDC_CLIENT_ID and OIDC_ROLES"),
        ({"OIDC_CLIENT_ID": "x"}, "OIDC_ROLES"),
    ):
        found = finding(run, "sign-in", OIDC_ISSUER="http://127.0.0.1:9", **given)
        assert (found["verdict"], found["do"]) == ("bad", f"Set {lacking}."), found
        assert found["seen"] == f"nobody can sign in without {lacking}"


def test_doctor_tells_by_the_last_tick_whether_the_daemon_works(run: Run, engine: Engine) -> None:
    never = finding(run, "Dagster daemon")
    assert (never["verdict"], never["seen"]) == ("bad", "has never ticked")
    heartbeats.beat(engine, heartbeats.DAEMON)
    assert finding(run, "Dagster daemon")["verdict"] == "ok"
    with engine.begin() as connection:
        connection.exec_driver_sql("update heartbeats set beat_at = now() - interval '3 minutes'")
    silent = finding(run, "Dagster daemon")
    assert (silent["verdict"], silent["seen"][:21]) == ("bad", "has not ticked for 18")
    assert "Deployment > Daemons and Automation" in silent["do"] and "clock was set back" in silent["do"]


def test_doctor_says_that_a_stack_is_starting(run: Run, tmp_path: Path) -> None:
    with stackfile.locked(tmp_path):
        told = run("doctor", "--data", str(tmp_path)).stdout
    assert "is starting or stopping; try again in a moment" in told.splitlines()[0], told


def test_doctor_waits_for_nobody_who_hangs(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, answers none
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        findings = diagnose(settings.model_copy(update={"s3_endpoint": endpoint}), patience=10)
        took = time.monotonic() - began
    found = {one.what: one for one in findings}
    assert took < 40  # its imports take long on a busy machine; the store would be waited for much longer
    assert found["database"].verdict is Verdict.OK
    bucket = found[f"bucket {settings.media_bucket_name}"]
    assert (bucket.verdict, bucket.seen) == (Verdict.BAD, "has not answered for 10 seconds")
    assert "S3_ENDPOINT" in bucket.do


def test_doctor_names_the_part_of_the_stack_that_hangs_and_not_the_gateway_that_says_so(
    settings: Settings, tmp_path: Path
) -> None:
    down = answering({"checks": {"mongodb": "has not answered for 6 seconds"}}, 503)
    with socket.create_server(("127.0.0.1", 0)) as silent, down as gateway, stackfile.locked(tmp_path):
        url = f"mongodb://127.0.0.1:{silent.getsockname()[1]}"
        about = {"pid": 1, "started_at": "2026-11-30T10:00:00+00:00", "environment": {}}
        stackfile.write(tmp_path, {**about, "parts": [{"name": "mongo", "url": url}]})
        changed = {"imgpipe_data_dir": tmp_path, "mongodb_url": f"{url}/ichat", "gateway_url": gateway.url}
        findings = diagnose(Settings(**{**settings.model_dump(), **changed}), patience=10)
    found = {one.what: one for one in findings}
    assert found["MongoDB"].verdict is found["gateway"].verdict is Verdict.BAD
    assert "logs/mongo.log" in found["MongoDB"].do and "kill mongo" in found["MongoDB"].do
    assert "mongodb" in found["gateway"].seen and "kill" not in found["gateway"].do


def test_doctor_names_a_missing_index_and_is_content_once_it_is_there(run: Run, mongo_url: str) -> None:
    missing = finding(run, "MongoDB")
    assert missing["verdict"] == "note" and "unique index over customer_id" in missing["seen"]
    documents = Documents(mongo_url, database="ichat")
    create_indexes(documents)
    documents.close()
    assert finding(run, "MongoDB")["verdict"] == "ok"


def test_doctor_names_a_key_that_is_refused(run: Run, standins: StandInAccess) -> None:
    access = {"OPENAI_API_KEY": "key", "OPENAI_BASE_URL": standins.openai_url}
    accepted = finding(run, "OpenAI", **access)
    assert accepted["verdict"] == "ok" and "imgpipe models check" in accepted["seen"]
    standins.fault("openai", "unauthorized")
    refused = finding(run, "OpenAI", **access)
    assert refused["verdict"] == "bad" and "OPENAI_API_KEY" in refused["seen"]


def test_doctor_calls_a_provider_by_its_own_name_and_takes_none_of_the_models_file_for_a_stand_in(
    settings: Settings, tmp_path: Path
) -> None:
    models = tmp_path / "models.toml"
    models.write_text('[providers.ours]\ndialect = "openai-chat"\nbase_url = "http://127.0.0.1:9/v1"')
    with stackfile.locked(tmp_path):
        about = {"pid": 1, "started_at": "2026-11-30T10:00:00+00:00", "environment": {}}
        stackfile.write(tmp_path, {**about, "parts": [{"name": "stand-ins", "url": "http://127.0.0.1:8"}]})
        changed = {"imgpipe_data_dir": tmp_path, "openai_base_url": "http://127.0.0.1:8/v1", "models_file": str(models)}
        findings = diagnose(Settings(**{**settings.model_dump(), **changed}))
    found = next(one for one in findings if one.what == "OpenAI")
    assert found.seen.startswith("ours could not be reached") and found.do.endswith("or MODELS_FILE.")


def test_doctor_names_a_missing_migration(run: Run, postgres_server: Postgres) -> None:
    url = ensure_database(postgres_server, "never_migrated")
    for what in ("database", "pending_images"):
        found = finding(run, what, DATABASE_URL=url, PENDING_IMAGES_DATABASE_URL=url)
        assert (found["verdict"], found["do"]) == ("bad", "Run `imgpipe migrate`.")


def test_doctor_shows_no_password(run: Run) -> None:
    result = run("doctor", DATABASE_URL="postgresql://someone:hidden-word@127.0.0.1:9/imgpipe")
    assert result.exit_code == 1
    assert "hidden-word" not in result.output
