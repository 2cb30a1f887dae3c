"""What is logged can be read by anybody: no secret gets through, and what is no secret does."""

import io
import json
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imgpipe_orchestration.errors import SettingsError
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.telemetry import logs
from imgpipe_orchestration.telemetry.logs import JsonFormatter, TextFormatter
from imgpipe_orchestration.telemetry.redaction import _Known, know, redact

S = "hunter2hunter2"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI0MiJ9.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"

SECRETS = [
    f"https://acc.blob.core.windows.net/c/b.jpg?sv=2024-11-04&se=2026-01-01&sr=b&sp=r&sig={S}%2Babc%3D",
    f"https://acc.blob.core.windows.net/c/b.jpg?sig={S}&sv=2024",
    f"https://bucket.s3.amazonaws.com/k?X-Amz-Expires=3600&X-Amz-Signature={S}&X-Amz-SignedHeaders=host",
    f"https://bucket.s3.amazonaws.com/k?X-Amz-Security-Token={S}",
    f"https://bucket.s3.amazonaws.com/k?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Expires=1&Signature={S}",
    f"https://storage.googleapis.com/k?X-Goog-Signature={S}",
    f"https://host/k?a=1&amp;sig={S}&amp;b=2",
    f"https://host/k?a=1\\u0026sig={S}\\u0026b=2",
    f"https://vision.googleapis.com/v1/images:annotate?key={S}",
    f"https://host/callback#access_token={S}&state=1",
    f"https://host/x?refresh_token={S}",
    f"Authorization: Bearer {S}",
    f"authorization: bearer {S}",
    f"Authorization: Basic dXNlcjp{S}==",
    f"Authorization: Token {S}",
    f"Authorization: Weird scheme with {S}",
    f"Proxy-Authorization: Basic {S}",
    f"{{'Authorization': 'Bearer {S}', 'Accept': '*/*'}}",
    f"{{'authorization': '{S}'}}",
    f"[(b'authorization', b'Bearer {S}')]",
    f"Cookie: session={S}; theme=dark",
    f"Set-Cookie: session={S}; HttpOnly",
    f"AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260101/us-east-1/s3/aws4_request, Signature={S}",
    f'{{"api_key": "{S}", "model": "m"}}',
    f'{{"apiKey":"{S}"}}',
    f'{{"external_api_key": "{S}"}}',
    f'{{"password": "with \\"quotes\\" and {S}"}}',
    f'"{{\\"client_secret\\": \\"{S}\\"}}"',
    f"{{'secret': '{S}'}}",
    f"Settings(openai_api_key='{S}', user_jwt_secret='{S}')",
    f"MEDIA_API_KEY={S} imgpipe up",
    f"export SECRET_KEY={S}",
    f"S3_SECRET_KEY: {S}",
    f"aws_secret_access_key = {S}",
    f"x-api-key: {S}",
    f"X-Imgpipe-Signature: {S}",
    f"postgresql://imgpipe:{S}@db.internal:5432/imgpipe",
    f"redis://:{S}@cache:6379/0",
    f"mysql://root:p@ss{S}@db/x",
    f"mongodb://u:a/b{S}@m1,m2/news",
    f"postgresql+psycopg2://u:{S}@h/d?sslmode=require",
    f"host=db user=u password={S} dbname=x",
    f"host=db password='{S} with spaces' dbname=x",
    f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={S}==;EndpointSuffix=core.windows.net",
    f"Server=s;Uid=u;Pwd={S};",
    f"<Error><SecretAccessKey>{S}</SecretAccessKey></Error>",
    f"Incorrect API key provided: sk-proj-{S}. You can find",
    f"the token {JWT} is expired",
    "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "AKIAIOSFODNN7EXAMPLE",
    f"ghp_{S}{S}",
    f"https://hooks.slack.com/services/T000/B000/{S}",
    f"-----BEGIN RSA PRIVATE KEY-----\nMIIE{S}\n-----END RSA PRIVATE KEY-----",
    f"-----BEGIN PRIVATE KEY-----\nMIIE{S}",
]

HARMLESS = [
    "",
    "claimed 100 items of media for run 3f2a in 12 ms",
    "input_tokens=1200 output_tokens=31 cost_usd=0.004",
    '{"total_tokens": 1231, "max_tokens": 4000}',
    "key=bulk/2026-01-20/17.jpg size=12000",
    "object key: library/user_7/product/img/12-grid-a1b2.avif",
    "GET http://127.0.0.1:8000/serve/12?size=grid&format=avif 200",
    "http://localhost:3000/users?email=a@b.example",
    "api_key=None password=null token=false",
    "secret_name=openai-production",
    "design of the keyboard, a basic example, the signature look",
    "bearer authentication is asked for",
    "mailto:someone@example.org wrote at 10:30",
    "https://user@example.org/path",
]


@pytest.mark.parametrize("text", SECRETS)
def test_no_secret_gets_through(text: str) -> None:
    for secret in (S, JWT, "AIzaSyA", "AKIAIOSFODNN7EXAMPLE"):
        assert secret not in redact(text)
    assert "***" in redact(text)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_what_stands_around_a_secret_stays_readable() -> None:
    url = f"https://acc.blob.core.windows.net/c/b.jpg?sv=2024&sig={S}&sp=r"
    assert redact(url) == "https://acc.blob.core.windows.net/c/b.jpg?sv=2024&sig=***&sp=r"
    assert redact(f"postgresql://imgpipe:{S}@db:5432/x") == "postgresql://imgpipe:***@db:5432/x"
    assert redact(f'{{"api_key": "{S}", "model": "m"}}') == '{"api_key": "***", "model": "m"}'
    assert redact(f"host=db password={S} dbname=x") == "host=db password=*** dbname=x"
    assert redact(f"Authorization: Bearer {S}\nAccept: */*").endswith("\nAccept: */*")


# --- lines ---------------------------------------------------------------------------------------------------------


def record(message: str, *args: Any, **extra: Any) -> logging.LogRecord:
    return logging.getLogger("imgpipe.test").makeRecord(
        "imgpipe.test", logging.INFO, __file__, 1, message, args, extra.pop("exc_info", None), extra=extra
    )


def connects(dsn: str) -> Any:
    try:
        try:
            raise ConnectionError(f"cannot reach {dsn}")
        except ConnectionError as error:
            raise RuntimeError("the worker gave up") from error
    except RuntimeError:
        return sys.exc_info()


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_no_secret_gets_through_by_message_argument_extra_or_traceback(formatter: logging.Formatter) -> None:
    dsn = f"postgresql://u:{S}@h/d"
    line = formatter.format(
        record(f"Bearer {S} and %s", dsn, api_key=S, nested={"token": S}, exc_info=connects(dsn)),
    )
    assert S not in line
    assert "the worker gave up" in line
    assert "cannot reach postgresql://u:***@h/d" in line


def test_a_json_line_is_one_json_object_whatever_is_in_it() -> None:
    line = JsonFormatter().format(
        record('quote " and\nbreak \udcff', api_key=12345, odd=object, item=7, exc_info=connects("x\ny"))
    )
    assert "\n" not in line
    parsed = json.loads(line)
    assert (parsed["api_key"], parsed["item"], parsed["level"]) == ("***", 7, "INFO")
    assert parsed["message"].startswith('quote " and\nbreak')
    assert "cannot reach x\ny" in parsed["traceback"]
    line.encode()


def test_nobody_forges_a_line_with_a_file_name() -> None:
    line = TextFormatter().format(record("refused %s", "a.jpg\n2026-01-01 00:00:00 - root - INFO - all is well\x1b[2J"))
    assert "\n" not in line
    assert "\x1b" not in line
    assert r"a.jpg\n2026" in line


@pytest.mark.parametrize("code", [0x0B, 0x1C, 0x7F, 0x85, 0x9B, 0x2028, 0x2029])
def test_no_control_character_nor_line_break_of_unicode_reaches_a_terminal(code: int) -> None:
    line = TextFormatter().format(record(f"refused a{chr(code)}b.jpg"))
    assert chr(code) not in line
    assert f"{code:x}b.jpg" in line


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, put back as it was."""
    logger = logging.getLogger()
    before = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:], level = before
    logger.setLevel(level)


@pytest.mark.parametrize("style", ["text", "json"])
def test_configured_logging_goes_to_standard_error_redacted(
    style: Any, root: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure(style=style, level="info")
    logs.logger("imgpipe.x").info("sent", extra={"url": f"https://h/?sig={S}"})
    logs.logger("imgpipe.x").debug("not shown")
    line = stream.getvalue()
    assert S not in line
    assert "sig=***" in line
    assert "not shown" not in line
    assert len(root.handlers) == 1


def test_lines_also_go_to_a_file_redacted_and_its_rotation_is_followed(root: logging.Logger, tmp_path: Path) -> None:
    path = tmp_path / "image-auto-marker.log"
    logs.configure(file=str(path))
    logs.logger("image").info("first", extra={"url": f"https://h/?sig={S}"})
    path.rename(tmp_path / "rotated")
    logs.logger("image").info("second")
    root.handlers[1].close()
    rotated = (tmp_path / "rotated").read_text()
    assert " - image - INFO - first" in rotated
    assert S not in rotated
    assert "second" in path.read_text()


def test_a_log_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="LOG_FILE"):
        logs.configure(file=str(tmp_path / "nowhere" / "x.log"))


# --- speed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hostile",
    [
        *("eyJ" * 100_000, "://" * 100_000, "a" * 300_000, "token" * 60_000, "password='" * 30_000),
        *("<secret" * 40_000, "://" + "a" * 300_000, "authorization: " * 20_000, "bearer " * 40_000),
        *("\\" * 300_000 + '"token":', "-----BEGIN PRIVATE KEY-----" * 10_000, "://a:" * 60_000),
    ],
)
def test_a_hostile_line_costs_time_in_proportion_to_its_length(hostile: str) -> None:
    """The formatters cut at FIELD_LENGTH; a line of that length must not hold up a worker."""
    line = hostile[: logs.FIELD_LENGTH]
    assert _seconds(lambda: redact(line)) < 0.5


def _seconds(call: Any) -> float:
    """The best of three."""
    best = float("inf")
    for _ in range(3):
        started = time.thread_time()
        call()
        best = min(best, time.thread_time() - started)
    return best


def test_the_keys_in_force_are_found_wherever_they_stand() -> None:
    key, password = "0123456789abcdef0123456789abcdef", "a-password-without-a-form"
    settings = Settings(media_api_key=key, database_url=f"postgresql://u:{password}@db/x", flowise_api_key="short")
    assert settings.secrets() == {key, password, "short"}
    before = _Known.values
    try:
        know(settings.secrets())
        assert redact(f'["you", "sent {key}, short and {password}!"]') == '["you", "sent ***, short and ***!"]'
    finally:
        _Known.values = before
