"""`imgpipe status` and `imgpipe requeue` over real queues."""

import json
import re
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text

from imgpipe_orchestration.auto_marker.model import JOB as MARKER
from imgpipe_orchestration.auto_marker.store import QUEUE as QUEUE_OF_JOBS
from imgpipe_orchestration.billing.ledger import Ledger
from imgpipe_orchestration.errors import BackendUnavailable, BadImage, NotFound, Permanent, RateLimited, SpendingPaused
from imgpipe_orchestration.listings.model import JOB_ID
from imgpipe_orchestration.listings.store import QUEUE, NewImage, add
from imgpipe_orchestration.media.store import MEDIA, REMAKE_VARIANTS
from imgpipe_orchestration.storage import job_definitions, job_instances
from imgpipe_orchestration.storage.claims import Claims
from imgpipe_orchestration.storage.job_instances import Trigger
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.billing.ledger.shop import ANNA, Shop, a_call, failing
from imgpipe_orchestration_tests.cli.conftest import Run
from imgpipe_orchestration_tests.storage.claims.shorthand import fail, finish, put


@pytest.fixture
def claims(engine: Engine) -> Claims:
    """A media queue with one item done, one failed and one waiting."""
    claims = Claims(engine)
    put(claims, 1, tenant="ann", queue=MEDIA)
    put(claims, 2, tenant="bob", queue=MEDIA)
    one, two = claims.claim(MEDIA, "worker", 2)
    finish(claims, one, MEDIA)
    fail(claims, two, BadImage("The file ends in the middle."), MEDIA)
    put(claims, 3, tenant="cleo", queue=MEDIA)
    return claims


def test_status_counts_and_names_what_failed(run: Run, claims: Claims) -> None:
    result = run("status", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    media = next(queue for queue in report["queues"] if queue["queue"] == "media")
    assert (media["waiting"], media["claimed"], media["done"], media["failed"]) == (1, 0, 1, 1)
    assert [(letter["item_id"], letter["error"]) for letter in report["failures"]] == [
        (2, "The file ends in the middle.")
    ]
    shown = run("status", "--check")
    assert shown.exit_code == 1
    assert "failed media 2 for bob: The file ends in the middle. (1 attempt)" in shown.stdout
    assert "imgpipe requeue" in shown.stdout
    run("requeue", "media")
    assert run("status", "--check").exit_code == 0


def test_status_shows_its_headings_and_figures_in_80_columns_beside_the_longest_name(run: Run, claims: Claims) -> None:
    put(claims, 5, queue=REMAKE_VARIANTS)
    shown = run("status").stdout
    assert re.search(r"^ *queue +waiting +in progress +done +failed +oldest +stuck +average *$", shown, re.MULTILINE)
    assert re.search(r"^ *media_remake_variants +1 +0 +0 +0 +\S+ s +0 +- *$", shown, re.MULTILINE)


def test_status_sees_uploads_that_no_worker_has_taken_up(run: Run, claims: Claims) -> None:
    with transaction(claims.engine) as connection:
        connection.execute(
            text(
                "insert into pending_images (user_id, image_path, status, created_at) values"
                " (1, '/temp_images/profiles/1-profile-1-1.jpg', 'pending', now() - interval '2 hours'),"
                " (1, '/temp_images/profiles/1-profile-1-2.jpg', 'pending', now())"
            )
        )
    report = json.loads(run("status", "--json").stdout)
    figures = report["pending_images"]
    assert (figures["pending"], figures["stuck"], figures["complete"]) == (2, 1, 0)
    media = next(queue for queue in report["queues"] if queue["queue"] == "media")
    assert media["waiting"] == 3  # with the one that a run took in and left
    assert media["oldest_waiting_seconds"] >= 7200


def test_status_has_the_auto_marker_with_what_failed(run: Run, claims: Claims) -> None:
    with transaction(claims.engine) as connection:
        job_instances.ensure(connection, MARKER, ["c1", "c2"], Trigger.SCHEDULED)
    for claim in claims.claim(QUEUE_OF_JOBS, "run-1", 2):
        with transaction(claims.engine) as connection:
            claims.finish(connection, QUEUE_OF_JOBS, claim)
            error = "Its image is [no text]." if claim.tenant == "c2" else None
            job_instances.finish(connection, claim.item_id, {}, error=error, failed=bool(error))
    job_instances.create_or_join(claims.engine, MARKER, customer_id="c3")
    report = json.loads(run("status", "--json").stdout)
    marker = next(queue for queue in report["queues"] if queue["queue"] == "auto_marker")
    assert (marker["waiting"], marker["claimed"], marker["done"], marker["failed"]) == (1, 0, 2, 0)
    assert [(job["customer_id"], job["error"]) for job in report["job_failures"]] == [("c2", "Its image is [no text].")]
    assert "failed auto_marker for c2: Its image is [no text]." in run("status").stdout
    run("requeue", "media")
    assert run("status", "--check", "--failures", "0").exit_code == 1


def test_status_tells_why_the_auto_marker_waits(run: Run, claims: Claims) -> None:
    for customer in ("c1", "c2"):
        job_instances.create_or_join(claims.engine, MARKER, customer_id=customer)
    job_instances.keep_waiting(claims.engine, MARKER, BackendUnavailable("MongoDB is [away]."))
    assert "waiting auto_marker: MongoDB is [away]. (2 items, again at" in run("status").stdout
    (reason,) = json.loads(run("status", "--json").stdout)["held_up"]
    assert (reason["queue"], reason["error"], reason["count"]) == (MARKER, "MongoDB is [away].", 2)


def test_status_tells_why_what_waits_is_not_done(run: Run, claims: Claims) -> None:
    put(claims, 4, queue=MEDIA)
    for claim in claims.claim(MEDIA, "worker", 2):
        fail(claims, claim, SpendingPaused("The quota [of May] is used up.", retry_after=600), MEDIA)
    told = r"^waiting media: The quota \[of May\] is used up\. \(2 items, again at [\d-]{10} [\d:]{8} UTC\)$"
    assert re.search(told, run("status").stdout, re.MULTILINE)
    (reason,) = json.loads(run("status", "--json").stdout)["held_up"]
    assert (reason["queue"], reason["error"], reason["count"]) == ("media", "The quota [of May] is used up.", 2)


def test_status_tells_of_listings_that_wait_for_a_stopped_job(run: Run, claims: Claims) -> None:
    def told() -> list[str]:
        return re.findall(r"^waiting listings: .*$", run("status").stdout, re.MULTILINE)

    with transaction(claims.engine) as connection:
        job_definitions.switch(connection, JOB_ID, on=False)
    assert told() == []
    image = NewImage(uuid4(), uuid4(), None, "flat", "flat-1.webp", "a.png", "originals/1", "image/png", 9, 1, 1)
    with transaction(claims.engine) as connection:
        claims.enqueue(connection, QUEUE, add(connection, [image], held=False))
    (line,) = told()
    assert "The job process-image-queue is stopped" in line and "(1 item)" in line
    with transaction(claims.engine) as connection:
        job_definitions.switch(connection, JOB_ID, on=True)
    assert told() == []


def test_requeue_gives_the_failed_item_fresh_attempts(run: Run, claims: Claims) -> None:
    result = run("requeue", "media", "2", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"requeued": {"media": [2]}, "hastened": {"media": []}, "not_failed": []}
    assert {claim.item_id for claim in claims.claim(MEDIA, "next", 10)} == {2, 3}


def test_requeue_revives_a_job_of_the_auto_marker_whose_runs_died(run: Run, claims: Claims) -> None:
    asked, _ = job_instances.create_or_join(claims.engine, MARKER, customer_id="c1")
    (claim,) = claims.claim(QUEUE_OF_JOBS, "run-1", 1)
    fail(claims, claim, Permanent("Its runs died."), QUEUE_OF_JOBS)
    died = job_instances.get(claims.engine, asked.id)
    assert (died.status, died.error) == ("failed", "Its runs died.")
    assert run("requeue", "auto-marker").exit_code == 0
    revived = job_instances.get(claims.engine, asked.id)
    assert (revived.status, revived.error, revived.finished_at) == ("queued", None, None)


def test_requeue_ends_the_pause_that_a_partner_asked_for(run: Run, claims: Claims) -> None:
    (claim,) = claims.claim(MEDIA, "worker", 1)
    fail(claims, claim, RateLimited("OpenAI asks us to slow down", retry_after=86400), MEDIA)
    assert "imgpipe requeue" in run("status").stdout
    assert claims.claim(MEDIA, "next", 10) == []
    assert "1 item no longer pauses: 3" in run("requeue", "media", "3").stdout
    assert {claim.item_id for claim in claims.claim(MEDIA, "next", 10)} == {3}


def test_requeue_asks_a_paused_provider_again(run: Run, claims: Claims) -> None:
    ledger, shop = Ledger(claims.engine), Shop()
    for purchase in (failing(SpendingPaused("OpenAI does not accept OPENAI_API_KEY")), shop):
        with pytest.raises(SpendingPaused, match="OPENAI_API_KEY"):
            ledger.buy(a_call(), purchase, buyer=ANNA)
    run("requeue", "media")
    assert ledger.buy(a_call(), shop, buyer=ANNA).bought


def test_requeue_of_an_unknown_pipeline_names_the_known_ones(run: Run, claims: Claims) -> None:
    refused = run("requeue", "medai").exception
    assert isinstance(refused, NotFound)
    known = "auto_marker, avatar_data, avatar_images, avatars, cdn_purges, erasures, lifecycle,"
    assert f"'medai'; there are {known}" in refused.public
