"""The sensors that tell ALERT_WEBHOOK_URL what happened, in Slack's format.

Slack, Mattermost, Rocket.Chat, Discord (with `/slack` at the end of its URL) and most alert gateways accept it. The
sensors are plain sensors with a cursor, not run failure sensors: Dagster asks those only once about each run, also when
they raise.
"""

import html
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any

import dagster as dg

from imgpipe_orchestration.billing import budgets
from imgpipe_orchestration.dagster_side.run_tags import PARTITION
from imgpipe_orchestration.dagster_side.sensors import sensor
from imgpipe_orchestration.errors import ImgpipeError, PartnerRefused, UnreadableAnswer
from imgpipe_orchestration.partners.http import JsonApi
from imgpipe_orchestration.partners.retry import RetryPolicy
from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.telemetry.redaction import redact
from imgpipe_orchestration.wiring.services import Services

ALERTS_A_TICK = 5
"""A tick has a minute, and each alert may take TIMEOUT_SECONDS."""
ALERT_SECONDS = 24 * 3600.0
"""An alert that the webhook has refused for this long is dropped, so that it does not hold up later ones for ever."""
TIMEOUT_SECONDS = 5.0
"""From the connection to the end of the answer."""
LONGEST = 1500
"""Characters of a reason. Discord refuses messages of more than 2,000."""


_plain = partial(html.escape, quote=False)
"""Text with Slack's special characters escaped (docs.slack.dev, "Formatting message text")."""

Alert = tuple[dict[str, str] | None, str, str]
"""One thing to tell: the message (None for one that is not told), its Idempotency-Key, the cursor after it."""


@sensor(
    description="Tells ALERT_WEBHOOK_URL of every failed run: job, reason, link. What it does not take is told later.",
    minimum_interval_seconds=30,
)
def alert_on_failed_runs(context: dg.SensorEvaluationContext, sensor_backends: BackendsResource) -> dg.SkipReason:
    return _tell(context, sensor_backends, "failed runs", _failed_runs)


@sensor(
    description="Tells ALERT_WEBHOOK_URL when an asset check begins to fail, once until it has passed again.",
    minimum_interval_seconds=60,
)
def alert_on_failed_checks(context: dg.SensorEvaluationContext, sensor_backends: BackendsResource) -> dg.SkipReason:
    return _tell(context, sensor_backends, "failed checks", _failed_checks)


@sensor(
    description="Tells ALERT_WEBHOOK_URL when a budget reaches one of its `alert_at`, each once in a period.",
    minimum_interval_seconds=60,
)
def alert_on_budgets(context: dg.SensorEvaluationContext, sensor_backends: BackendsResource) -> dg.SkipReason:
    return _tell(context, sensor_backends, "budgets", _reached)


def _tell(
    context: dg.SensorEvaluationContext,
    backends: BackendsResource,
    what: str,
    found: Callable[[dg.SensorEvaluationContext, Services], Iterable[Alert]],
) -> dg.SkipReason:
    """Send what is found, in order; the first that the webhook does not take waits, with all after it."""
    url = backends.services.settings.alert_webhook_url
    if not url:
        return dg.SkipReason("ALERT_WEBHOOK_URL is not set")
    told = 0
    for message, key, cursor in islice(found(context, backends.services), ALERTS_A_TICK):
        try:
            if message:
                send(url, message, key)
                told += 1
        except ImgpipeError as error:
            if not told:
                raise  # the cursor stays, and the tick shows why
            return dg.SkipReason(f"told of {told} {what}; the next waits: {error}")
        context.update_cursor(cursor)
    return dg.SkipReason(f"told of {told} {what}")


def _reached(context: dg.SensorEvaluationContext, services: Services) -> Iterator[Alert]:
    link = f"{services.settings.public_base_url}/spending"
    with transaction(services.engine) as connection:
        now = budgets.standings(connection, services.settings.daily_budget_usd)
    reached = {
        f"{one.scope} {one.period} {one.began:%Y-%m-%d} {share:g}": (one, share)
        for one in now
        for share in one.alert_at
        if one.share >= share
    }
    told = reached.keys() & set(json.loads(context.cursor or "[]"))  # without what belongs to a period that is over
    for key, (one, share) in reached.items():
        if key not in told:
            told |= {key}
            waits = "; paid work waits" if one.used_up else ""
            of = f"{share:.0%} of the *{_plain(one.title)}* is spent: {one.spent_usd:.2f} of {one.limit_usd:.2f} USD"
            message = {"text": f":moneybag: {of}{waits}\n<{link}|spending>"}
            yield message, f"budget-{key.replace(' ', '-')}", json.dumps(sorted(told))


def _failed_runs(context: dg.SensorEvaluationContext, services: Services) -> Iterator[Alert]:
    instance, cursor = context.instance, context.cursor or ""
    newest = instance.fetch_run_status_changes(dg.DagsterEventType.RUN_FAILURE, limit=1).records
    last = newest[0].storage_id if newest else 0
    if not cursor.isdecimal() or int(cursor) > last:  # the first tick, or somebody set it, or the newest was deleted
        cursor = str(last)
        yield None, "", cursor
    failed = dg.RunStatusChangeRecordsFilter(dg.DagsterEventType.RUN_FAILURE, after_storage_id=int(cursor))
    for record in instance.fetch_run_status_changes(failed, limit=ALERTS_A_TICK, ascending=True).records:
        entry = record.event_log_entry
        is_recent = record.timestamp > time.time() - ALERT_SECONDS
        message = _of_run(instance, entry, services.settings.dagster_url) if is_recent else None
        yield message, f"run-failed-{entry.run_id}", str(record.storage_id)


def _of_run(instance: dg.DagsterInstance, failure: dg.EventLogEntry, dagster_url: str) -> dict[str, str] | None:
    """The message about a failed run; None when the run was deleted since."""
    run = instance.get_run_by_id(failure.run_id)
    if run is None:
        return None
    reasons = []
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        error = entry.dagster_event.step_failure_data.error if entry.dagster_event else None
        while error is not None and error.cause is not None:  # the outermost only says which step it was
            error = error.cause
        if error is not None:
            is_in_our_words = error.cls_name == dg.Failure.__name__  # for people, who need not read its class first
            reasons.append(error.message.partition(": ")[2] if is_in_our_words else error.message)
    said = failure.dagster_event.message if failure.dagster_event else None
    reason = (reasons[0] if reasons else said or "The run ended without an error message.").strip()
    partition = run.tags.get(PARTITION)
    head = f":rotating_light: *{_plain(run.job_name)}* failed" + (f" on {_plain(partition)}" if partition else "")
    why = _plain(redact(reason)).replace("\n", "\n>")[:LONGEST]
    return {"text": f"{head}\n>{why}\n<{dagster_url}/runs/{run.run_id}|run {run.run_id[:8]}>"}


def _failed_checks(context: dg.SensorEvaluationContext, services: Services) -> Iterator[Alert]:
    told = set(json.loads(context.cursor or "[]"))
    keys = context.repository_def.asset_graph.asset_check_keys if context.repository_def else []
    for record in [context.instance.get_latest_asset_check_evaluation_record(key) for key in sorted(keys)]:
        found = record.evaluation if record else None
        # One that is being evaluated, or was when its run was killed, has a plan in its place.
        if record is None or not isinstance(found, dg.AssetCheckEvaluation):
            continue
        name = found.asset_check_key.to_user_string()
        if found.passed == (name not in told):
            continue
        told ^= {name}
        message = None
        if not found.passed:
            asset, check = "/".join(found.asset_key.path), found.check_name
            link = f"{services.settings.dagster_url}/assets/{asset}?view=checks&checkDetail={check}"
            details = ", ".join(f"{label}: {_said(value)}" for label, value in found.metadata.items())
            head = f":warning: The check *{_plain(check)}* of {_plain(asset)} fails"
            message = {"text": f"{head}\n>{_plain(redact(details))[:LONGEST]}\n<{link}|its evaluations>"}
        yield message, f"check-failed-{record.run_id}-{name}", json.dumps(sorted(told))


def _said(value: dg.MetadataValue[Any]) -> object:
    """A metadata value for people; a table row by row."""
    if not isinstance(value, dg.TableMetadataValue):
        return value.value
    return "; ".join(", ".join(f"{name} {cell}" for name, cell in row.data.items()) for row in value.records)


def send(url: str, message: dict[str, str], key: str) -> None:
    """Post `message` once. After an error the caller sends it again.

    Args:
        key: the same for every repetition of this message; sent as Idempotency-Key.

    Raises:
        PartnerUnavailable: the webhook does not answer, or answers 5xx.
        RateLimited: it answers 429.
        PartnerRefused: it refuses the message (a wrong or revoked URL).
    """
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    once = RetryPolicy(attempts=1, budget=TIMEOUT_SECONDS)
    with closing(JsonApi("The alert webhook", url, timeout=TIMEOUT_SECONDS, policy=once)) as webhook:
        try:
            webhook.request("POST", "", body=json.dumps(message).encode(), headers=headers)
        except UnreadableAnswer:
            return  # it took the message, whatever it says
        except PartnerRefused as refused:  # its words name where a redirect leads, which may be the URL, a secret
            status = refused.partner_status
            raise PartnerRefused(f"The alert webhook answered {status}.", partner_status=status) from None
        except ImgpipeError as error:
            raise error from None  # the error that it came from may name the URL


SENSORS = [alert_on_failed_runs, alert_on_failed_checks, alert_on_budgets]
