"""Failed runs and checks are told to a webhook, without secrets, each once, and later when it was away."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned

from imgpipe_orchestration.dagster_side.alerts import alert_on_failed_checks, alert_on_failed_runs, send
from imgpipe_orchestration.errors import ImgpipeError, PartnerRefused, PartnerUnavailable
from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration_tests.dagster_side.jobs import broken
from imgpipe_orchestration_tests.partners.wire import reply, serving


class Webhook:
    """Answers with the statuses it is told, then with 200; keeps what it was sent."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.messages: list[dict[str, Any]] = []
        self.keys: list[str] = []
        """The Idempotency-Key of every request, also of those that were refused."""
        self.url = ""

    def behave(self, handler: BaseHTTPRequestHandler, _: int) -> None:
        self.keys.append(handler.headers["Idempotency-Key"])
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 200:
            self.messages.append(json.loads(handler.sent))  # type: ignore[attr-defined]  # by `serving`
        reply(handler, status=status)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    webhook = Webhook()
    with serving(webhook.behave) as server:
        webhook.url = f"{server.url}/services/T/B/secret"
        yield webhook


class Alerts:
    """The sensor over an instance, ticked as the daemon does it: what a tick that raises did to its cursor is lost."""

    def __init__(self, instance: dg.DagsterInstance, backends: BackendsResource) -> None:
        self.instance = instance
        self._backends = backends
        self.cursor: str | None = None

    def tick(self) -> str | None:
        """What the tick says of itself."""
        resources = {"sensor_backends": self._backends}
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursor, resources=resources) as context:
            result = alert_on_failed_runs.evaluate_tick(context)
        self.cursor = result.cursor
        return result.skip_message

    def fail(self) -> str:
        result = broken.execute_in_process(
            instance=self.instance, raise_on_error=False, tags={"dagster/partition": "today"}
        )
        return result.run_id


@pytest.fixture
def over(monkeypatch: pytest.MonkeyPatch, postgres_url: str) -> Iterator[Callable[[str], Alerts]]:
    """The sensor with a webhook's URL, after its first tick."""
    monkeypatch.setenv("DAGSTER_URL", "https://dagster.example")
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    with ExitStack() as opened:
        instance = opened.enter_context(dg.DagsterInstance.ephemeral())

        def make(url: str) -> Alerts:
            monkeypatch.setenv("ALERT_WEBHOOK_URL", url)
            backends = BackendsResource()
            opened.callback(backends.services.close)
            alerts = Alerts(instance, backends)
            alerts.fail()
            assert alerts.tick() == "told of 0 failed runs", "of those from now on"
            return alerts

        yield make


def told(webhook: Webhook) -> list[str]:
    """Of which runs, as far as a message shows an id."""
    return [message["text"].rsplit("|run ", 1)[1].rstrip(">") for message in webhook.messages]


def test_a_failed_run_is_told_with_its_reason_and_a_link(webhook: Webhook, over: Callable[[str], Alerts]) -> None:
    alerts = over(webhook.url)
    run_id = alerts.fail()
    assert alerts.tick() == "told of 1 failed runs"
    (message,) = webhook.messages
    assert "*broken* failed on today" in message["text"]
    assert "no luck with &lt;this&gt; &amp; postgresql://u:***@h/d" in message["text"]
    assert f"<https://dagster.example/runs/{run_id}|run {run_id[:8]}>" in message["text"]


def test_runs_that_fail_while_the_webhook_is_away_are_told_once_when_it_is_back(
    webhook: Webhook, over: Callable[[str], Alerts]
) -> None:
    alerts = over(webhook.url)
    failed = [alerts.fail() for _ in range(7)]
    webhook.statuses = [503, 429, 404, 200, 200, 500]
    for status in (503, 429, 404):
        with pytest.raises(ImgpipeError, match=str(status)):
            alerts.tick()
    assert alerts.tick() == "told of 2 failed runs; the next waits: The alert webhook failed (HTTP 500)"
    assert alerts.tick() == "told of 5 failed runs"
    assert told(webhook) == [run_id[:8] for run_id in failed]
    assert alerts.tick() == "told of 0 failed runs"
    assert len(webhook.messages) == 7
    first, second, third, *others = (f"run-failed-{run_id}" for run_id in failed)
    assert webhook.keys == [first, first, first, first, second, third, third, *others], "one key for each message"


def test_a_failure_that_nobody_took_for_a_day_keeps_later_ones_waiting_no_more(
    webhook: Webhook, over: Callable[[str], Alerts], monkeypatch: pytest.MonkeyPatch
) -> None:
    alerts = over(webhook.url)
    alerts.fail()
    tomorrow = time.time() + 24 * 3600 + 60
    with monkeypatch.context() as later:
        later.setattr(time, "time", lambda: tomorrow)
        assert alerts.tick() == "told of 0 failed runs"
    assert webhook.messages == []


@dg.asset
def images() -> None: ...


FOUND: dict[str, int] = {}
"""What the check below finds."""


@dg.asset_check(asset=images)
def images_are_stored() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=not FOUND, metadata=dict(FOUND))


def test_a_check_that_begins_to_fail_is_told_once_until_it_has_passed_again(
    webhook: Webhook, over: Callable[[str], Alerts], monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = over(webhook.url).instance
    job = dg.define_asset_job("looks", dg.AssetSelection.checks_for_assets(images))
    checked = dg.Definitions(assets=[images], asset_checks=[images_are_stored], jobs=[job])
    resources = {"sensor_backends": BackendsResource()}
    cursor: str | None = None

    def tick(lost: int) -> str | None:
        nonlocal cursor
        FOUND.clear()
        FOUND.update({"lost": lost} if lost else {})
        assert checked.resolve_job_def("looks").execute_in_process(instance=instance).success
        with dg.build_sensor_context(instance, cursor, definitions=checked, resources=resources) as context:
            result = alert_on_failed_checks.evaluate_tick(context)
        cursor = result.cursor
        return result.skip_message

    assert tick(0) == "told of 0 failed checks"
    webhook.statuses = [503]
    with pytest.raises(ImgpipeError, match="503"):
        tick(2)
    assert tick(2) == "told of 1 failed checks"
    assert tick(3) == "told of 0 failed checks"
    assert tick(0) == "told of 0 failed checks"
    assert tick(4) == "told of 1 failed checks"
    first, second = (message["text"] for message in webhook.messages)
    assert "check *images_are_stored* of images fails" in first
    assert "lost: 2" in first
    assert "lost: 4" in second
    assert "<https://dagster.example/assets/images?view=checks&checkDetail=images_are_stored|" in first
    assert len(set(webhook.keys)) == 3


def test_a_check_whose_run_was_killed_before_it_keeps_no_other_from_being_told_of(
    webhook: Webhook, over: Callable[[str], Alerts]
) -> None:
    """Dagster keeps the plan in the place of the evaluation that never came."""

    @dg.asset_check(asset=images)
    def images_are_sharp() -> dg.AssetCheckResult:
        rows = [dg.TableRecord({"image": n, "customer": "dunes"}) for n in (4, 7)]
        return dg.AssetCheckResult(passed=False, metadata={"blurred": dg.MetadataValue.table(rows)})

    instance = over(webhook.url).instance
    checks = [images_are_sharp, images_are_stored]
    job = dg.define_asset_job("looks", dg.AssetSelection.checks(images_are_sharp))
    checked = dg.Definitions(assets=[images], asset_checks=checks, jobs=[job])
    assert checked.resolve_job_def("looks").execute_in_process(instance=instance).success
    run, key = instance.create_run_for_job(broken), images_are_stored.check_key
    plan = AssetCheckEvaluationPlanned(asset_key=key.asset_key, check_name=key.name)
    kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED.value
    instance.report_dagster_event(dg.DagsterEvent(kind, "broken", event_specific_data=plan), run.run_id)
    resources = {"sensor_backends": BackendsResource()}
    with dg.build_sensor_context(instance, definitions=checked, resources=resources) as context:
        assert alert_on_failed_checks.evaluate_tick(context).skip_message == "told of 1 failed checks"
    (message,) = webhook.messages
    assert "blurred: customer dunes, image 4; customer dunes, image 7" in message["text"]


def test_a_webhook_that_refuses_or_is_gone_is_an_error_without_its_url(webhook: Webhook) -> None:
    webhook.statuses = [404]
    with pytest.raises(PartnerRefused, match="answered 404") as refused:
        send(webhook.url, {"text": "x"}, "key")
    assert refused.value.__suppress_context__
    with pytest.raises(PartnerUnavailable, match="could not be reached") as away:
        send("http://127.0.0.1:1/services/T/B/secret", {"text": "x"}, "key")
    assert "secret" not in f"{refused.value}{away.value}"
