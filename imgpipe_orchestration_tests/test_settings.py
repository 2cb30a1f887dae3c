"""Settings: defaults, then the running stack, then the environment; a bad value names its variable."""

import json
import os
from pathlib import Path

import pytest
from sqlalchemy import make_url
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2

from imgpipe_orchestration.errors import SettingsError
from imgpipe_orchestration.operations.startup import misspelled
from imgpipe_orchestration.settings import DEVELOPMENT_SECRET, STACK_FILE, Settings, first_day, load
from imgpipe_orchestration_tests.settings_page import FILE, render

PRODUCTION = {
    "IMGPIPE_ENV": "production",
    "DATABASE_URL": "postgresql://u@h/d",
    "S3_ENDPOINT": "https://s3.example.com",
    **dict.fromkeys(
        ("MEDIA_API_KEY", "MAIN_API_KEY", "ADMIN_API_KEY", "USER_JWT_SECRET", "SECRET_KEY"),
        "a-real-secret-of-enough-length-0123456789",
    ),
}


def stack(folder: Path, **environment: str) -> Path:
    (folder / STACK_FILE).write_text(json.dumps({"environment": environment}))
    return folder


def test_the_environment_wins_over_the_running_stack_and_that_over_the_default(tmp_path: Path) -> None:
    assert load({}, data_dir=tmp_path).gateway_port == 8000
    stack(tmp_path, GATEWAY_PORT="8100", FLASK_PORT="8101")
    assert load({}, data_dir=tmp_path).gateway_port == 8100
    settings = load({"GATEWAY_PORT": "8200"}, data_dir=tmp_path)
    assert (settings.gateway_port, settings.flask_port) == (8200, 8101)
    assert load({"IMGPIPE_DATA_DIR": str(tmp_path)}).imgpipe_data_dir == tmp_path


def test_an_empty_variable_and_what_another_release_wrote_are_passed_over(tmp_path: Path) -> None:
    stack(tmp_path, NO_LONGER_A_SETTING="1")
    assert load({"GATEWAY_PORT": "", "LOG_LEVEL": ""}, data_dir=tmp_path).gateway_port == 8000


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GATEWAY_PORT", "eighty"),
        ("GATEWAY_PORT", "70000"),
        ("IMGPIPE_ENV", "staging"),
        ("LOG_LEVEL", "LOUD"),
        ("RETENTION_DAYS", "-1"),
        ("RETENTION_DAYS", "1e12"),
        ("LEASE_SECONDS", "inf"),
        ("MEDIA_FIRST_DAY", "2026-02-30"),
        ("MEDIA_FIRST_DAY", "2999-01-01"),
        ("FRONTEND_ORIGINS", "*"),
        ("FRONTEND_ORIGINS", "https://shop.example/"),
    ],
)
def test_a_bad_value_names_its_variable_and_what_was_given(variable: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=variable) as raised:
        load({variable: value}, data_dir=tmp_path)
    assert raised.value.public.startswith(variable)
    assert value in raised.value.public


def test_what_is_nearly_a_setting_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATWAY_PORT", "1")
    assert misspelled() == ["GATWAY_PORT is not a setting; did you mean GATEWAY_PORT?"]


def test_every_bad_value_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as raised:
        load({"LEASE_SECONDS": "0", "LOG_FORMAT": "xml"}, data_dir=tmp_path)
    assert all(part in raised.value.public for part in ("LOG_FORMAT", "'xml'", "LEASE_SECONDS", "'0'"))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "nonsense"),
        ("DATABASE_URL", "postgresql://user:hidden@host:port/name"),
        ("DATABASE_URL", "postgresql://user:hidden@[::1/name"),
        ("MONGODB_URL", "localhost:27017"),
        ("S3_ENDPOINT", "http://["),
        ("SMART_MEDIA_BASE_URL", "images.example"),
    ],
)
def test_what_is_no_address_names_its_variable_and_not_its_password(variable: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=variable) as raised:
        load({variable: value}, data_dir=tmp_path)
    assert raised.value.public.startswith(variable)
    assert "hidden" not in raised.value.public


@pytest.mark.parametrize("variable", [name for name in PRODUCTION if name != "IMGPIPE_ENV"])
@pytest.mark.parametrize("value", ["", " ", DEVELOPMENT_SECRET, f"{DEVELOPMENT_SECRET} ", "test", " x       "])
def test_production_refuses_a_missing_a_default_and_a_toy_secret(variable: str, value: str, tmp_path: Path) -> None:
    if variable in {"DATABASE_URL", "S3_ENDPOINT"}:
        value = ""
    with pytest.raises(SettingsError, match=variable) as raised:
        load({**PRODUCTION, variable: value}, data_dir=tmp_path)
    assert raised.value.public.startswith(variable)


def test_production_names_all_that_is_missing_at_once(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"MEDIA_API_KEY, .*SECRET_KEY, DATABASE_URL, S3_ENDPOINT must be set in production"
    ):
        load({"IMGPIPE_ENV": "production"}, data_dir=tmp_path)


def test_production_says_which_keys_are_the_development_key(tmp_path: Path) -> None:
    keys = [name for name in PRODUCTION if name.endswith(("_KEY", "_SECRET"))] + ["METRICS_API_KEY", "BACKEND_API_KEY"]
    for key in [*keys, "SIGNED_URL_KEYS"]:
        with pytest.raises(SettingsError) as raised:
            load({**PRODUCTION, key: f" {DEVELOPMENT_SECRET} "}, data_dir=tmp_path)
        assert raised.value.public.startswith(f"{key} is the development key, which everybody knows: set your own")
    with pytest.raises(SettingsError, match="MEDIA_API_KEY, SECRET_KEY are the development key"):
        load({**PRODUCTION, "MEDIA_API_KEY": DEVELOPMENT_SECRET, "SECRET_KEY": DEVELOPMENT_SECRET}, data_dir=tmp_path)


def test_only_pending_images_may_be_in_another_kind_of_database(tmp_path: Path) -> None:
    mysql = "mysql://u@h/d"
    with pytest.raises(SettingsError, match=r"^DATABASE_URL is not an address such as postgresql://"):
        load({"DATABASE_URL": mysql}, data_dir=tmp_path)
    assert load({"PENDING_IMAGES_DATABASE_URL": mysql}, data_dir=tmp_path).pending_images_database_url == mysql


def test_what_log_lines_must_not_hold_is_known_by_value(tmp_path: Path) -> None:
    given = {
        **PRODUCTION,
        "OPENAI_API_KEY": "of-openai",
        "SIGNED_URL_KEYS": "the-new-one, the-old-one",
        "MONGODB_URL": "mongodb://u:of-mongo@h/d",
        "ALERT_WEBHOOK_URL": "https://hooks.example.com/of-the-webhook",
    }
    secrets = load(given, data_dir=tmp_path).secrets()
    expected = {"of-openai", "the-new-one", "the-old-one", "of-mongo", "https://hooks.example.com/of-the-webhook"}
    assert expected | {PRODUCTION["SECRET_KEY"]} <= secrets
    assert "" not in secrets


def test_what_follows_another_setting_follows_it_until_it_is_set(tmp_path: Path) -> None:
    settings = load({"DATABASE_URL": "postgresql://u@h/d", "GATEWAY_URL": "http://g:1"}, data_dir=tmp_path)
    assert settings.pending_images_database_url == "postgresql://u@h/d"
    assert settings.dagster_pg_url.startswith("postgresql+psycopg2://u@h/d")
    assert (settings.main_api_url, settings.public_base_url) == ("http://g:1", "http://g:1")
    assert settings.smart_media_base_url == "http://g:1/api/images"
    own = load({"DATABASE_URL": "postgresql://h/d", "PENDING_IMAGES_DATABASE_URL": "mysql://h/p"}, data_dir=tmp_path)
    assert own.pending_images_database_url == "mysql://h/p"


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("", "-csearch_path=dagster"),
        ("?sslmode=require", "-csearch_path=dagster"),
        ("?options=-csearch_path%3Dimages&sslmode=require", "-csearch_path=images -csearch_path=dagster"),
    ],
)
def test_dagsters_tables_have_a_schema_of_their_own_whatever_else_the_url_says(
    query: str, options: str, tmp_path: Path
) -> None:
    settings = load({"DATABASE_URL": f"postgresql://u@h/d{query}"}, data_dir=tmp_path)
    _, arguments = PGDialect_psycopg2().create_connect_args(make_url(settings.dagster_pg_url))
    assert arguments["options"] == options
    assert ("sslmode" in arguments) == ("sslmode" in query)


def test_settings_survive_the_way_through_an_environment(tmp_path: Path) -> None:
    settings = load({"GATEWAY_PORT": "8123", "LEASE_SECONDS": "7.5"}, data_dir=tmp_path)
    assert load(settings.environment(), data_dir=tmp_path) == settings


def test_a_setting_is_described_and_loading_reads_the_processs_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
    for name in [name for name in os.environ if name.lower() in Settings.model_fields]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GATEWAY_PORT", "8300")
    monkeypatch.setenv("MEDIA_FIRST_DAY", "2026-01-31\r")
    assert load(data_dir=tmp_path).gateway_port == 8300
    assert load(data_dir=tmp_path).media_first_day == first_day() == "2026-01-31"
    for wrong in ("yesterday", "2999-01-01"):  # Dagster reads it before there are settings
        monkeypatch.setenv("MEDIA_FIRST_DAY", wrong)
        with pytest.raises(SettingsError, match=f"MEDIA_FIRST_DAY: .*{wrong}"):
            first_day()


def test_the_page_of_the_settings_is_up_to_date_and_has_every_one() -> None:
    page = render()
    assert FILE.read_text() == page, "run `make fix`"
    for name in Settings.model_fields:
        assert f"| `{name.upper()}` |" in page, f"{name} stands under no section heading of settings.py"
