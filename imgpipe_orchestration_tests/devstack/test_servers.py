"""The embedded servers: they answer, keep what they acknowledged through kill -9, and leave nothing behind."""

import os
import signal
import stat
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pymongo
import pytest
import requests

from imgpipe_orchestration.avatars.model import PUBLIC_KEYS
from imgpipe_orchestration.devstack.mongo import Mongo
from imgpipe_orchestration.devstack.plan import make_plan
from imgpipe_orchestration.devstack.ports import free_port, is_free
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.devstack.s3 import S3, PublicObjects
from imgpipe_orchestration.errors import BackendUnavailable
from imgpipe_orchestration_tests.conftest import S3Access
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.parts import QuickPostgres, ensure_database, running


def test_postgres_keeps_committed_rows_through_kill_minus_9(open_folder: Path) -> None:
    with running(Postgres(open_folder / "data", free_port())) as server:
        url = ensure_database(server, "rows")
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
        server.kill()
        assert not server.answers()
        server.start()
        server.wait_until_ready()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1000,)


def test_postgres_starts_again_once_a_session_that_its_dead_postmaster_left_has_ended(open_folder: Path) -> None:
    """Memory that runs out may end the postmaster alone, while a session is busy. Two servers would spoil the data."""
    with running(Postgres(open_folder / "data", free_port())) as server, psycopg.connect(server.url) as session:
        assert server.pid is not None
        busy = psutil.Process(session.info.backend_pid)
        busy.suspend()
        try:
            os.kill(server.pid, signal.SIGKILL)
            wait_for(lambda: server.exit_code() is not None, "the postmaster's end")
            server.start()
            wait_for(lambda: server.exit_code() is not None, "the refusal to start beside it")
            assert not server.answers()
            busy.kill()
            server.wait_until_ready()
        finally:
            with suppress(psutil.NoSuchProcess):
                busy.kill()


def test_postgres_starts_over_when_its_first_start_was_cut_off(open_folder: Path) -> None:
    unfinished = open_folder / "data.new"
    unfinished.mkdir()
    (unfinished / "PG_VERSION").write_text("16\n")
    with running(QuickPostgres(open_folder / "data", free_port())) as server:
        assert server.answers()
    assert not unfinished.exists()


def test_postgres_data_is_readable_by_its_user_only(open_folder: Path) -> None:
    server = Postgres(open_folder / "data", free_port())
    server.prepare()
    assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700


def test_s3_keeps_objects_through_kill_minus_9(tmp_path: Path) -> None:
    with running(S3(tmp_path / "buckets", free_port(), access_key="access", secret_key="secret")) as server:
        client = S3Access(server, server.url, "access", "secret").client()
        client.create_bucket(Bucket="photos")
        client.put_object(Bucket="photos", Key="user_1/ä b.webp", Body=b"bytes")
        server.kill()
        server.start()
        server.wait_until_ready()
        answer = client.get_object(Bucket="photos", Key="user_1/ä b.webp")
        assert answer["Body"].read() == b"bytes"
        assert answer["ContentType"] == "image/webp"


def test_s3_lets_pages_of_the_first_front_end_send_files(tmp_path: Path) -> None:
    shop = "https://shop.example.com"
    plan = make_plan(tmp_path, {"FRONTEND_ORIGINS": f"{shop},https://other.example.com"})
    (server,) = (part for part in plan.parts if isinstance(part, S3))
    with running(server):
        asks = {"Method": "PUT", "Headers": "content-type"}
        headers = {"Origin": shop, **{f"Access-Control-Request-{name}": value for name, value in asks.items()}}
        answer = requests.options(f"{server.url}/media/staging/1/x", headers=headers, timeout=10)
    assert answer.ok
    assert answer.headers["Access-Control-Allow-Origin"] == shop
    assert "PUT" in answer.headers["Access-Control-Allow-Methods"]
    assert "Content-Type" in answer.headers["Access-Control-Allow-Headers"]


def test_s3_secret_is_not_on_the_command_line(s3_server: S3) -> None:
    assert s3_server.pid is not None
    assert not any(s3_server.secret_key in word for word in psutil.Process(s3_server.pid).cmdline())


def test_public_objects_shows_finished_avatars_only(s3_server: S3, s3: S3Access) -> None:
    public, private = s3.bucket("public"), s3.bucket("private")
    person = "avatars/task_1/persona_2"
    names = ("base.png", "image_3.png", "base_thumb.webp", "image_0_thumb.avif")
    finished = {f"{public}/avatars/task_1/manifest.json", *(f"{public}/{person}/{name}" for name in names)}
    hidden = {f"{public}/{person}/bought/base-0123abcd.png", f"{public}/x.png", f"{private}/{person}/base.png"}
    for bucket, _, key in (path.partition("/") for path in finished | hidden):
        s3.client().put_object(Bucket=bucket, Key=key, Body=b"bytes")
    patterns = [f"{public}/{key}" for key in PUBLIC_KEYS]
    with running(PublicObjects(s3_server.folder, free_port(), public=patterns)) as server:
        answers = {path: requests.get(f"{server.url}/{path}", timeout=10) for path in finished | hidden}
    assert {path for path, answer in answers.items() if answer.content == b"bytes"} == finished
    assert {answers[path].status_code for path in hidden} == {404}
    assert answers[f"{public}/{person}/base_thumb.webp"].headers["Content-Type"] == "image/webp"


def test_mongo_keeps_documents_through_kill_minus_9(tmp_path: Path) -> None:
    with running(Mongo(tmp_path / "data", free_port())) as server:
        with pymongo.MongoClient(server.url) as client:
            client["news"]["documents"].insert_many([{"n": n} for n in range(100)])
        server.kill()
        server.start()
        server.wait_until_ready()
        with pymongo.MongoClient(server.url) as client:
            assert client["news"]["documents"].count_documents({}) == 100
            assert client["other"]["documents"].count_documents({}) == 0


@pytest.mark.parametrize("part", [Postgres, Mongo])
def test_a_stopped_server_leaves_no_process_and_a_free_port(part: type[Postgres | Mongo], open_folder: Path) -> None:
    with running(part(open_folder / "data", free_port())) as server:
        assert server.pid is not None
        session = os.getsid(server.pid)
    left = [p for p in psutil.pids() if _session(p) == session]
    assert left == []
    assert is_free(server.port)


def test_a_server_that_cannot_start_says_what_its_log_says(open_folder: Path) -> None:
    with running(Mongo(open_folder / "first", free_port())) as first:
        second = Postgres(open_folder / "second", first.port)
        with pytest.raises(BackendUnavailable, match="Address already in use"), running(second):
            pass


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
