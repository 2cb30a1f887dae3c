"""What a stack would start, and the environment its parts would share: decisions only, nothing runs."""

import socket
from pathlib import Path

import pytest

from imgpipe_orchestration.devstack.plan import Plan, make_plan
from imgpipe_orchestration.devstack.ports import Ports
from imgpipe_orchestration.errors import SettingsError
from imgpipe_orchestration.settings import STACK_FILE

PRODUCTION = {
    "IMGPIPE_ENV": "production\r",  # of a file with the line ends of Windows
    "DATABASE_URL": "postgresql://imgpipe:word@db/imgpipe",
    "S3_ENDPOINT": "https://s3.example.com",
    "S3_ACCESS_KEY": "access",
    "S3_SECRET_KEY": "an-s3-secret",
    "MONGODB_URL": "mongodb://user:word@mongo/ichat",
    **{name: f"secret of {name}" for name in ("MEDIA_API_KEY", "MAIN_API_KEY", "ADMIN_API_KEY", "SECRET_KEY")},
    "USER_JWT_SECRET": "a secret of at least thirty-two bytes",
    "OPENAI_API_KEY": "sk-real",
    "GOOGLE_VISION_API_KEY": "real",
    "FLOWISE_BASE_URL": "https://flowise.example.com",
    "SIGNED_URL_KEYS": "new secret of signed URLs, old secret of signed URLs",
    "CELERY_BROKER_URL": "redis://:word@redis:6379/0",
    "PENDING_IMAGES_DATABASE_URL": "postgresql://db/oaf?user=u&password=word",
}


def names(plan: Plan) -> list[str]:
    return [part.name for part in plan.parts]


def test_with_no_setting_everything_is_ours(tmp_path: Path) -> None:
    assert names(make_plan(tmp_path, {})) == [
        "postgres",
        "s3",
        "s3-public",
        "mongo",
        "stand-ins",
        "gateway",
        "code-server",
        "dagster-webserver",
        "dagster-daemon",
    ]


@pytest.mark.parametrize(
    ("setting", "value", "gone"),
    [
        ("DATABASE_URL", "postgresql://db/imgpipe", {"postgres"}),
        ("S3_ENDPOINT", "https://s3.example.com", {"s3", "s3-public"}),
        ("MONGODB_URL", "mongodb://mongo/ichat", {"mongo"}),
        ("OPENAI_API_KEY", "sk-real", set()),
    ],
)
def test_a_named_service_replaces_its_part(tmp_path: Path, setting: str, value: str, gone: set[str]) -> None:
    plan = make_plan(tmp_path, {setting: value})
    assert set(names(make_plan(tmp_path, {}))) - set(names(plan)) == gone
    assert plan.environment[setting] == value


def test_a_real_key_is_never_sent_to_a_stand_in(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, {"OPENAI_API_KEY": "sk-real", "GOOGLE_VISION_API_KEY": "real"})
    assert plan.environment["OPENAI_BASE_URL"] == "https://api.openai.com/v1"
    assert plan.environment["GOOGLE_VISION_ENDPOINT"] == "https://vision.googleapis.com"
    assert plan.stand_ins == ["Flowise", "the Vision Analysis API"], "they are replaced one by one"


def test_production_shows_and_writes_down_no_secret(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, PRODUCTION)
    shown = plan.public_environment()
    hidden = {"DATABASE_URL", "DAGSTER_PG_URL", "MONGODB_URL", "USER_JWT_SECRET", "S3_ACCESS_KEY", "S3_SECRET_KEY"}
    hidden |= {"PENDING_IMAGES_DATABASE_URL", "CELERY_BROKER_URL"}
    assert hidden.isdisjoint(shown)
    assert not any(secret in value for value in shown.values() for secret in ("secret", "sk-real", ":word@"))
    assert {"GATEWAY_URL", "S3_ENDPOINT", "FLOWISE_BASE_URL"} <= set(shown)
    assert plan.shared["MEDIA_API_KEY"] == "secret of MEDIA_API_KEY"


def test_production_starts_nothing_of_ours_but_our_services(tmp_path: Path) -> None:
    none = ("OPENAI", "GOOGLE", "FLOWISE", "MONGODB")
    plan = make_plan(tmp_path, {name: value for name, value in PRODUCTION.items() if not name.startswith(none)})
    assert plan.stand_ins == []
    assert names(plan) == ["gateway", "code-server", "dagster-webserver", "dagster-daemon"]
    assert {plan.environment[name] for name in ("OPENAI_API_KEY", "FLOWISE_BASE_URL", "MONGODB_URL")} == {""}
    assert plan.environment["ALLOWED_PRIVATE_HOSTS"] == "", "links from outside reach nothing inside"


@pytest.mark.parametrize(
    ("given", "dagsters"),
    [
        (
            {"DATABASE_URL": "postgresql://db/imgpipe?sslmode=require"},
            "postgresql+psycopg2://db/imgpipe?sslmode=require&options=-csearch_path%3Ddagster",
        ),
        ({"DAGSTER_PG_URL": "postgresql://db/dagster"}, "postgresql+psycopg2://db/dagster"),
    ],
)
def test_dagster_gets_its_own_driver_and_in_a_shared_database_its_own_schema(
    tmp_path: Path, given: dict[str, str], dagsters: str
) -> None:
    assert make_plan(tmp_path, given).environment["DAGSTER_PG_URL"] == dagsters


def test_downloads_may_reach_our_own_parts_and_what_the_user_allowed(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, {"ALLOWED_PRIVATE_HOSTS": "10.0.0.0/8"})
    allowed = plan.environment["ALLOWED_PRIVATE_HOSTS"].split(",")
    assert allowed[0] == "10.0.0.0/8"
    assert f"127.0.0.1:{plan.environment['GATEWAY_PORT']}" in allowed


def test_a_stack_keeps_its_ports_and_leaves_those_that_were_taken(tmp_path: Path) -> None:
    first = Ports(tmp_path / "ports.json")
    asked = first.choose("gateway", "0")
    first.save()
    assert Ports(tmp_path / "elsewhere.json").choose("gateway", str(asked)) != asked, "it is reserved"
    first.release()
    again = Ports(tmp_path / "ports.json")
    assert again.choose("gateway") == asked
    assert again.notes == [f"gateway uses port {asked}, as at its last start"]
    again.release()
    with socket.socket() as somebody:
        somebody.bind(("127.0.0.1", asked))
        somebody.listen()
        again = Ports(tmp_path / "ports.json")
        other = again.choose("gateway")
        assert other != asked
        assert again.notes == [f"port {asked} is taken; gateway uses {other}"]
        again.release()


def test_a_port_that_only_root_may_take_is_not_said_to_be_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(SettingsError, match="port 80 needs root"):
        make_plan(tmp_path, {"GATEWAY_PORT": "80"})


def test_files_that_a_power_cut_left_empty_keep_no_stack_from_starting(tmp_path: Path) -> None:
    for name in ("ports.json", STACK_FILE):
        (tmp_path / name).touch()
    assert set(names(make_plan(tmp_path, {}))) >= {"postgres", "gateway"}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("GATEWAY_PORT", "http"),
        ("FLASK_PORT", "70000"),
        ("MODEL_PRICES", "cheap"),
        ("ALLOWED_PRIVATE_HOSTS", "10.0.0.0/8/8"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FILE", "/no/such/folder/imgpipe.log"),
    ],
)
def test_a_setting_that_a_part_could_not_use_is_refused_before_any_starts(
    tmp_path: Path, setting: str, value: str
) -> None:
    with pytest.raises(SettingsError, match=setting) as refused:
        make_plan(tmp_path, {setting: value})
    assert refused.value.public.startswith(setting)


def test_settings_that_parts_could_not_use_are_named_together(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"MODEL_PRICES .*; LOG_FILE: "):
        make_plan(tmp_path, {"MODEL_PRICES": "{x", "LOG_FILE": "/no/such/folder/log"})
