"""`GET /metrics`, and that everything which names a metric names one that exists."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, text

from imgpipe_orchestration.errors import BadImage
from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage import heartbeats
from imgpipe_orchestration.storage.claims import Claim, Queue
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import work_through
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.client import Client
from imgpipe_orchestration_tests.gateway.conftest import frozen_sessions
from imgpipe_orchestration_tests.storage.claims.shorthand import finish, put

DEPLOY = Path(__file__).parents[2] / "deploy"
QUEUE = Queue("things", max_attempts=3)
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scraped(client: Client) -> Samples:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


@pytest.fixture
def worked(settings: Settings, services: Services) -> Settings:
    """A queue in which one item is done, one has failed and one waits; and a paid call."""
    put(services.claims, 1, 2, tenant="a", queue=QUEUE)
    batch = services.claims.claim(QUEUE, "run-1", 2)

    def step(claim: Claim) -> None:
        if claim.item_id == 2:
            raise BadImage("not an image")
        finish(services.claims, claim, QUEUE)

    work_through(services.claims, QUEUE, batch, step, threads=1)
    put(services.claims, 3, queue=QUEUE)
    with transaction(services.engine) as connection:
        connection.execute(
            text("""
                insert into paid_call_uses (key, outcome, pipeline, item, provider, operation, model, input_tokens,
                    output_tokens, cost_usd, seconds)
                values ('k', 'bought', 'media', '1', 'openai', 'vision', 'gpt-6-luna', 100, 20, 0.25, 1.5)
            """)
        )
        connection.execute(text("insert into spending_pauses values ('openai', now() + interval '1 hour', 'quota')"))
    heartbeats.beat(services.engine, "auto_marker")
    return settings


def test_queues_stages_and_paid_calls_are_told(worked: Settings) -> None:
    chosen = worked.model_copy(update={"job_interval_minutes": 7, "daily_budget_usd": 2.5})
    with Client(create_app(chosen)) as client:
        health = str(client.get("/health").status_code)  # 503 where the machine is too busy to answer in time
        seen = scraped(client)

    def value(name: str, **labels: str) -> float:
        return seen[name, tuple(sorted(labels.items()))]

    assert value("imgpipe_database_up") == 1
    states = {
        state: value("imgpipe_queue_items", queue="things", state=state) for state in ("waiting", "done", "failed")
    }
    assert states == {"waiting": 1, "done": 1, "failed": 1}
    assert 0 <= value("imgpipe_queue_oldest_seconds", queue="things") < 60
    assert value("imgpipe_attempts_recent", queue="things", outcome="failed") == 1
    assert value("imgpipe_stage_items_total", queue="things", stage="things", outcome="done") == 1
    assert value("imgpipe_stage_items_total", queue="things", stage="things", outcome="failed") == 1
    assert 0 < value("imgpipe_stage_seconds_total", queue="things", stage="things", outcome="done") < 10
    call = {"provider": "openai", "model": "gpt-6-luna"}
    assert value("imgpipe_provider_calls_total", **call, outcome="bought") == 1
    assert value("imgpipe_provider_tokens_total", **call, direction="input") == 100
    assert value("imgpipe_provider_cost_usd_total", **call) == 0.25
    assert value("imgpipe_provider_paused", provider="openai") == 1
    assert value("imgpipe_pipeline_cost_usd_total", pipeline="media") == 0.25
    assert value("imgpipe_daily_budget_usd") == 2.5
    assert value("imgpipe_tick_age_seconds", pipeline="auto_marker") < 60
    assert value("imgpipe_tick_interval_seconds", pipeline="auto_marker") == 420
    assert value("imgpipe_http_requests_total", method="GET", route="/health", status=health) == 1
    assert value("imgpipe_http_request_seconds_count", route="/health") == 1


def test_uploads_wait_also_while_no_run_takes_them_in(client: Client, engine: Engine) -> None:
    insert = text(
        "insert into pending_images (user_id, image_path, status, created_at) values"
        " (1, '/temp_images/profiles/1-profile-1-1.jpg', 'pending', now() - interval '20 minutes')"
    )
    with transaction(engine) as connection:
        connection.execute(insert)
    seen = scraped(client)
    queue = ("queue", "media")
    assert seen["imgpipe_queue_items", (queue, ("state", "waiting"))] == 1
    assert seen["imgpipe_queue_items", (queue, ("state", "claimed"))] == 0
    assert seen["imgpipe_queue_oldest_seconds", (queue,)] >= 1200


def test_requests_are_counted_by_route_and_not_by_path(client: Client) -> None:
    for number in range(3):
        client.get(f"/serve/{number + 1000}")
        client.get(f"/no/such/path/{number}")
    seen = scraped(client)
    counted = {
        dict(labels)["route"]: value for (name, labels), value in seen.items() if name.endswith("requests_total")
    }
    assert counted == {"/serve/{media_id}": 3, "other": 3}


def test_a_database_that_is_away_is_a_figure_and_not_an_error(settings: Settings) -> None:
    broken = settings.model_copy(update={"database_url": "postgresql://nobody@127.0.0.1:1/none"})
    with Client(create_app(broken)) as client:
        assert scraped(client)["imgpipe_database_up", ()] == 0


def test_a_database_that_is_frozen_is_a_figure_within_a_scrapes_time(client: Client, settings: Settings) -> None:
    assert scraped(client)["imgpipe_database_up", ()] == 1
    with frozen_sessions(settings.database_url):
        began = time.monotonic()
        seen = scraped(client)
        took = time.monotonic() - began
    again = scraped(client)
    assert (seen["imgpipe_database_up", ()], again["imgpipe_database_up", ()]) == (0, 1)
    assert took < 10  # what Prometheus waits where it is told nothing else


def named_in(expression: str) -> set[str]:
    return set(re.findall(r"\bimgpipe_[a-z_]+", expression))


def expressions(node: object) -> Iterator[str]:
    """Every PromQL expression in a dashboard or in alert rules."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "expr" and isinstance(value, str):
                yield value
            else:
                yield from expressions(value)
    elif isinstance(node, list):
        for value in node:
            yield from expressions(value)


@pytest.mark.usefixtures("worked")
def test_every_metric_of_dashboard_and_alerts_exists(client: Client) -> None:
    client.get("/health")
    kinds = re.findall(r"^# TYPE (\S+) (\S+)$", client.get("/metrics").text, re.MULTILINE)
    exist = {name for name, _ in kinds}
    exist |= {f"{name}_{part}" for name, kind in kinds if kind == "histogram" for part in ("bucket", "count", "sum")}
    dashboard = list(expressions(json.loads((DEPLOY / "grafana" / "imgpipe.json").read_text())))
    alerts = list(expressions(yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())))
    assert len(dashboard) > 10
    assert len(alerts) > 8
    for expression in dashboard + alerts:
        promql_parser.parse(expression.replace("$__rate_interval", "5m"))  # raises where it is no PromQL
        assert named_in(expression), expression
        assert named_in(expression) <= exist, expression


def test_every_alert_says_what_to_do() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())
    for rule in [rule for group in rules["groups"] for rule in group["rules"]]:
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["do"]
