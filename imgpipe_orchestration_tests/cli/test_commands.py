"""`imgpipe migrate`, `env`, `token` and the exit codes that scripts rely on."""

import json
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import jwt
import pytest

from imgpipe_orchestration.cli import stack
from imgpipe_orchestration.devstack.plan import make_plan
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.devstack.stackfile import locked
from imgpipe_orchestration.errors import SettingsError
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration_tests.cli.conftest import Run
from imgpipe_orchestration_tests.devstack.running import clean_environment, imgpipe
from imgpipe_orchestration_tests.parts import ensure_database


def test_migrate_brings_an_empty_database_up_to_date(run: Run, postgres_server: Postgres) -> None:
    url = ensure_database(postgres_server, "to_migrate")
    check = run("migrate", "--check", "--json", DATABASE_URL=url)
    assert check.exit_code == 1
    pending = json.loads(check.stdout)["pending"]
    assert pending
    done = run("migrate", "--json", DATABASE_URL=url)
    assert json.loads(done.stdout)["applied"] == pending
    assert run("migrate", "--check", DATABASE_URL=url).exit_code == 0


def test_a_token_makes_its_bearer_a_user(run: Run, settings: Settings) -> None:
    given = run("token", "42").stdout.strip()
    assert jwt.decode(given, settings.user_jwt_secret, ["HS256"])["sub"] == "42"


@pytest.mark.parametrize(
    "words", [("doctor",), ("gc", "--delete"), ("migrate",), ("requeue", "media"), ("status",), ("token", "42")]
)
def test_a_shell_with_the_settings_of_a_stack_is_not_used_for_another(run: Run, words: tuple[str, ...]) -> None:
    refused = run(*words, IMGPIPE_EXPORTED="/srv/elsewhere")
    assert isinstance(refused.exception, SettingsError), refused.output
    assert "this shell has the settings of the stack on /srv/elsewhere" in refused.exception.public


@pytest.mark.parametrize(
    "words",
    [("token", "abc"), ("requeue", "media", "1", "abc"), ("requeue", "media", "0"), ("requeue", "media", "9" * 30)],
)
def test_what_is_no_id_is_called_so(run: Run, words: tuple[str, ...]) -> None:
    refused = run(*words)
    assert refused.exit_code == 2
    told = ("'abc' is not a valid id (a number from 1 on)", f"{words[-1]} is not in the range 1<=x<=")
    assert told[0 if words[-1] == "abc" else 1] in refused.stderr


def test_no_token_is_made_in_production(run: Run) -> None:
    names = ("MEDIA_API_KEY", "MAIN_API_KEY", "ADMIN_API_KEY", "USER_JWT_SECRET", "SECRET_KEY")
    refused = run(
        "token",
        "42",
        IMGPIPE_ENV="production",
        S3_ENDPOINT="http://s3:9000",
        **{name: f"{name} {'x' * 32}" for name in names},
    )
    assert refused.exit_code == 2
    assert "sign in" in refused.stderr


def test_a_database_that_was_never_migrated_is_named_with_the_way_out(
    postgres_server: Postgres, tmp_path: Path
) -> None:
    environ = {**clean_environment(), "DATABASE_URL": ensure_database(postgres_server, "never_migrated")}
    result = imgpipe("requeue", "media", "--data", str(tmp_path), environ=environ)
    assert result.returncode == 1
    first, why = result.stderr.splitlines()
    assert re.fullmatch(r"imgpipe: The database's schema is not up to date: run `\S*imgpipe migrate`\.", first)
    assert "does not exist" in why


@pytest.mark.parametrize("command", ["env", "down"])
def test_commands_that_need_a_stack_end_with_3_when_none_runs(command: str, tmp_path: Path) -> None:
    result = imgpipe(command, "--data", str(tmp_path))
    assert result.returncode == 3
    assert f"imgpipe up --data {tmp_path}" in result.stderr


def test_what_a_killed_stack_left_behind_is_no_running_stack(tmp_path: Path) -> None:
    left = {"environment": {"DATABASE_URL": "postgresql://postgres@127.0.0.1:9/imgpipe"}}
    (tmp_path / "stack.json").write_text(json.dumps(left))
    (tmp_path / "lock").touch()
    result = imgpipe("status", "--data", str(tmp_path))
    assert result.returncode == 3, result.stderr
    assert f"imgpipe up --data {tmp_path}" in result.stderr


def test_a_second_up_says_who_runs_and_a_command_that_stops_it_as_it_stands(tmp_path: Path) -> None:
    folder = tmp_path / "our data"
    folder.mkdir()
    running = {"pid": 77, "started_at": "today", "environment": {"GATEWAY_URL": "http://127.0.0.1:8000"}, "parts": {}}
    (folder / "stack.json").write_text(json.dumps(running))
    with locked(folder):
        result = imgpipe("up", "--data", str(folder))
    assert result.returncode == 4, result.stderr
    assert "process 77" in result.stderr and "http://127.0.0.1:8000" in result.stderr
    assert f"imgpipe down --data '{folder}'`" in result.stderr


def test_a_setting_that_makes_no_sense_is_one_line_and_code_2(tmp_path: Path) -> None:
    for command in ("status", "up", "doctor"):
        environ = {**clean_environment(), "DATABASE_URL": "nonsense"}
        result = imgpipe(command, "--data", str(tmp_path), environ=environ)
        assert result.returncode == 2, result.stderr
        assert result.stderr.startswith("imgpipe: DATABASE_URL is not an address")
        assert "Traceback" not in result.stderr


def test_a_name_that_nothing_has_is_one_line_and_code_2(tmp_path: Path) -> None:
    environ = {**clean_environment(), "DATABASE_URL": "postgresql://127.0.0.1:9/imgpipe"}
    result = imgpipe("requeue", "medai", "--data", str(tmp_path), environ=environ)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("imgpipe: There is no pipeline or queue 'medai'; there are auto_marker,")


def test_a_stack_needs_nobody_who_reads_its_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(tmp_path, {})
    plan.ports.release()
    told = []
    with suppress(OSError), Path("/dev/full").open("w") as full:  # closing it tries to write what is left
        for output in (full, None):
            monkeypatch.setattr(sys, "stdout", output)
            stack._say("starting")
            stack._announce(plan, 1.0)
            told.append(output)
    assert told == [full, None]


def test_a_proxy_is_not_asked_for_what_runs_on_this_machine(run: Run) -> None:
    nobody = dict.fromkeys(("http_proxy", "HTTP_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    result = run("doctor", "--json", **nobody, no_proxy="intranet.example", NO_PROXY="intranet.example")
    found = {finding["what"]: finding for finding in json.loads(result.stdout)}
    assert [found[what]["verdict"] for what in found if what.startswith("bucket ")] == ["ok"] * 4, result.stdout


def test_a_printed_command_runs_where_it_was_printed(tmp_path: Path) -> None:
    told = imgpipe("status", "--data", str(tmp_path)).stderr
    command = told.partition("`")[2].partition("`")[0].replace(" up ", " down ")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr


def test_every_command_of_the_help_has_one_of_its_own_and_a_line_in_the_documents(run: Run) -> None:
    commands = re.findall(r"^  ([a-z-]+)  ", run("--help").stdout.partition("Commands:")[2], re.MULTILINE)
    assert len(commands) > 10
    documents = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    for command in commands:
        assert run(command, "--help").exit_code == 0
        assert f"| `imgpipe {command}" in documents
