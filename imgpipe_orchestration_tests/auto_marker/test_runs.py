"""The work of a run: isolation, fairness, batches, concurrency, crashes."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pymongo.collection import Collection
from pymongo.errors import ExecutionTimeout
from sqlalchemy import text

from imgpipe_orchestration.auto_marker import runs, toggle
from imgpipe_orchestration.auto_marker.model import JOB, Figures
from imgpipe_orchestration.auto_marker.runs import due
from imgpipe_orchestration.auto_marker.store import QUEUE, ImageConfigs, News, Page
from imgpipe_orchestration.devstack.mongo import Mongo
from imgpipe_orchestration.errors import BackendUnavailable
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage import job_instances
from imgpipe_orchestration.storage.job_instances import JobStatus, Trigger
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.auto_marker.conftest import marked, seed
from imgpipe_orchestration_tests.devstack.running import wait_for


def round_of(services: Services, run_id: str = "run-1", *, scheduled: bool = True) -> dict[str, Figures]:
    todo = runs.begin_round(services)[0] if scheduled else []
    told: list[Figures] = []
    runs.mark_round(services, todo, run_id, told.append)
    return {figures.customer_id: figures for figures in told}


def all_of(services: Services, customer: str, run_id: str = "run-1") -> Figures:
    told: list[Figures] = []
    runs.mark_all_of(services, customer, run_id, told.append)
    (figures,) = told
    return figures


def test_each_customer_gets_its_batch_oldest_first(services: Services) -> None:
    old = seed(services, "busy", 70)
    seed(services, "small", 3)
    figures = round_of(services)
    assert {c: (f.found, f.marked, f.failed) for c, f in figures.items()} == {"busy": (50, 50, 0), "small": (3, 3, 0)}
    left = services.documents.collection("news_document").find({"customer_id": "busy", "clean_image": None})
    assert [d["_id"] for d in left] == old[50:]
    assert round_of(services)["busy"].marked == 20
    assert round_of(services) == {}


def test_who_is_off_is_left_alone_and_who_is_new_gets_a_config(services: Services) -> None:
    for customer in ("off", "on", "new"):
        seed(services, customer, 2)
    configs = ImageConfigs(services.documents)
    configs.switch("off", False)
    configs.switch("on", True)
    assert sorted(round_of(services)) == ["new", "on"]
    assert marked(services, "off") == 0
    assert [c["auto_mark_cleaned"] for c in configs.of("new")] == [True]


def test_a_name_that_no_document_has_is_made_no_customer(services: Services) -> None:
    figures = all_of(services, "mistyped")
    assert (figures.marked, figures.note) == (0, "there is no document of this customer")
    assert ImageConfigs(services.documents).of("mistyped") == []


def test_a_customer_who_is_off_and_asks_is_told_why_nothing_happened(services: Services) -> None:
    seed(services, "off", 2)
    ImageConfigs(services.documents).switch("off", False)
    asked, _ = job_instances.create_or_join(services.engine, JOB, customer_id="off")
    round_of(services, scheduled=False)
    shown = job_instances.shown(job_instances.get(services.engine, asked.id))
    assert (shown["status"], shown["images_marked"]) == ("completed", 0)
    assert "automatic marking is off for this customer; it is switched on under Auto-marker" in shown["note"]
    assert marked(services, "off") == 0


def test_one_customers_broken_data_fails_alone_and_is_named_also_in_the_log(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "imgpipe_orchestration")
    seed(services, "broken", 2, image={"url": "x"})
    seed(services, "mixed", 1, image=5)
    seed(services, "mixed", 3)
    seed(services, "odd-toggle", 1)
    services.documents.collection("image_config").insert_one({"customer_id": "odd-toggle", "auto_mark_cleaned": "yes"})
    image, *_ = seed(services, "fine", 25)
    figures = round_of(services)
    assert (figures["fine"].marked, figures["fine"].trouble) == (25, None)
    assert (figures["mixed"].found, figures["mixed"].marked, figures["mixed"].failed) == (4, 3, 1)
    assert not figures["mixed"].broken
    assert figures["broken"].broken
    assert "its image is not text" in str(figures["broken"].trouble)
    assert "auto_mark_cleaned is 'yes'" in str(figures["odd-toggle"].trouble)
    jobs = {job.customer_id: job for job in job_instances.recent(services.engine, JOB)}
    assert {c: j.status for c, j in jobs.items()} == {
        "fine": "completed",
        "mixed": "completed",
        "broken": "failed",
        "odd-toggle": "failed",
    }
    assert (jobs["mixed"].result["images_found"], jobs["mixed"].result["images_failed"]) == (4, 1)
    said = {(record.levelname, record.getMessage()) for record in caplog.records}
    assert said >= {  # the document's words
        ("INFO", "Starting image auto-marker job for customer: fine"),
        ("INFO", "Found 25 pending images for customer fine"),
        ("DEBUG", f"Marked image {image} as cleaned (auto-mark)"),
        ("INFO", "Auto-mark completed for customer fine: 25/25 images marked"),
        ("ERROR", "Auto-mark failed for customer broken: 0/2 images marked"),
        ("ERROR", "Auto-mark completed for customer mixed: 3/4 images marked"),
    }
    assert not [message for level, message in said if level == "ERROR" and "customer fine" in message]


def test_documents_that_cannot_be_marked_do_not_block_those_behind_them_nor_a_round(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    for customer, bad in (("c1", 60), ("c2", 1600)):
        seed(services, customer, bad, image=5)
        seed(services, customer, 70)
    monkeypatch.setattr(runs, "MOST_UNMARKABLE", 700)
    pages, plain = [], News.mark_page

    def mark_page(self: News, *arguments: Any, **more: Any) -> Page:
        pages.append(arguments[0])
        return plain(self, *arguments, **more)

    monkeypatch.setattr(News, "mark_page", mark_page)
    figures = round_of(services)
    assert [(figures[c].found, figures[c].marked) for c in ("c1", "c2")] == [(110, 50), (800, 0)]
    assert (figures["c1"].broken, figures["c2"].broken) == (False, True)
    assert "800 cannot be marked" in str(figures["c2"].error)
    assert "waits until they are corrected" in str(figures["c2"].error)
    assert pages.count("c2") == 5, "each page sorts all that is pending"
    assert all_of(services, "c2").marked == 70


def test_a_backfill_stops_when_its_customer_is_switched_off(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed(services, "a", runs.PAGE_SIZE + 5)
    plain = News.mark_page

    def mark_page(self: News, *arguments: Any, **more: Any) -> Page:
        page = plain(self, *arguments, **more)
        toggle.write(services, "a", False, by="somebody")
        return page

    monkeypatch.setattr(News, "mark_page", mark_page)
    figures = all_of(services, "a")
    assert (figures.marked, figures.trouble) == (runs.PAGE_SIZE, None)
    assert "switched off" in str(figures.note)


def test_a_backfill_waits_for_a_round_at_work_for_its_customer_and_fails_if_that_takes_too_long(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed(services, "a", 3)
    job_instances.create_or_join(services.engine, JOB, customer_id="a")
    assert services.claims.claim(QUEUE, "round", 1)
    with monkeypatch.context() as hasty:
        hasty.setattr(runs, "PATIENCE_SECONDS", 0)
        late = all_of(services, "a")
    assert (late.broken, marked(services, "a")) == (True, 0)
    assert "another run is still at work" in str(late.error)
    threading.Timer(0.5, services.claims.release, ["round"]).start()
    assert all_of(services, "a").marked == 3


def test_who_asks_while_a_run_is_at_work_on_a_slow_customer_does_not_wait_for_it(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    for customer in ("slow", "good"):
        seed(services, customer, 3)
    good_done, marks = threading.Event(), News.mark_page

    def mark_page(self: News, customer: str, *arguments: Any, **named: Any) -> Page:
        if customer == "slow":
            job_instances.create_or_join(services.engine, JOB, customer_id="good")
            assert good_done.wait(60), "the other customer waited for the slow one"
        return marks(self, customer, *arguments, **named)

    monkeypatch.setattr(News, "mark_page", mark_page)
    seen: list[tuple[str, int]] = []

    def tell(figures: Figures) -> None:
        seen.append((figures.customer_id, figures.marked))
        good_done.set()

    runs.mark_round(services, ["slow"], "run-1", tell)
    assert seen == [("good", 3), ("slow", 3)]


def test_who_asked_goes_first_in_a_round(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "CUSTOMERS_AT_ONCE", 1)
    monkeypatch.setattr(runs, "GROUP", 2)
    customers = [f"c{number}" for number in range(5)]
    for customer in (*customers, "asks"):
        seed(services, customer, 1)
    told: list[str] = []

    def tell(figures: Figures) -> None:
        told.append(figures.customer_id)
        if len(told) == 1:
            job_instances.create_or_join(services.engine, JOB, customer_id="asks")
            job_instances.create_or_join(services.engine, JOB, customer_id="c4", user_id="7")

    runs.mark_round(services, customers, "run-1", tell)
    assert told[2:4] == ["c4", "asks"]
    assert sorted(told) == [*sorted((*customers, "asks"))]


def test_a_cancelled_run_ends_its_round_but_not_what_others_asked_for(services: Services) -> None:
    with transaction(services.engine) as connection:
        job_instances.ensure(connection, JOB, ["held", "waits"], Trigger.SCHEDULED)
    asked, _ = job_instances.create_or_join(services.engine, JOB, customer_id="asked")
    (held,) = services.claims.claim(QUEUE, "run-1", 1)
    assert job_instances.cancel(services.engine, "run-1") == 1
    with transaction(services.engine) as connection:
        left = connection.execute(text("select customer_id, status from job_instances order by number")).all()
        waiting = connection.execute(text("select item_id from work_items where state = 'waiting'")).scalars().all()
    assert left == [(held.tenant, "failed"), ("asked", "queued")]
    assert waiting == [asked.number]


def test_what_an_interrupted_run_holds_is_left_to_whoever_knows_why(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed(services, "a", 1)

    def interrupted(*_: Any, **named: Any) -> None:
        named["take"](1, ())
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(runs, "drain", interrupted)
        runs.mark_round(services, ["a"], "run-1", lambda _: None)
    assert job_instances.cancel(services.engine, "run-1") == 1
    assert [row.status for row in job_instances.recent(services.engine, JOB)] == ["failed"]


def test_two_runs_at_once_mark_nothing_twice(services: Services, settings: Settings) -> None:
    total = 0
    for n in range(8):
        seed(services, f"c{n}", 40)
        total += 40
    other = Services(settings)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda pair: round_of(*pair), [(services, "run-1"), (other, "run-2")])
    other.close()
    counted = sum(f.marked for figures in (first, second) for f in figures.values())
    assert counted == total
    assert all(marked(services, f"c{n}") == 40 for n in range(8))
    assert {job.status for job in job_instances.recent(services.engine, JOB, limit=100)} == {JobStatus.COMPLETED}


def test_a_tick_that_takes_too_long_to_see_leaves_it_to_a_run_once_an_interval(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: Any, **__: Any) -> None:
        raise ExecutionTimeout("operation exceeded time limit", 50)

    monkeypatch.setattr(Collection, "find", slow)
    assert due(services) is True
    with pytest.raises(BackendUnavailable, match="took too long"):
        runs.begin_round(services)
    assert due(services) == "nothing was asked for and the next round is not due"


def test_mongodb_stopped_in_the_middle_of_a_run_loses_and_doubles_nothing(settings: Settings, own_mongo: Mongo) -> None:
    url = f"{own_mongo.url}/ichat?serverSelectionTimeoutMS=5000"
    services = Services(settings.model_copy(update={"mongodb_url": url}))
    customers = [f"c{n}" for n in range(2 * runs.GROUP)]
    for customer in customers:
        seed(services, customer, 30)
    asked, _ = job_instances.create_or_join(services.engine, JOB, customer_id="c0")
    todo = runs.begin_round(services)[0]
    seen: list[Figures] = []

    def tell(figures: Figures) -> None:
        seen.append(figures)
        own_mongo.kill()

    with pytest.raises(BackendUnavailable):
        runs.mark_round(services, todo, "run-1", tell)
    jobs = job_instances.recent(services.engine, JOB, limit=100)
    assert {JobStatus.QUEUED} <= {job.status for job in jobs} <= {JobStatus.QUEUED, JobStatus.COMPLETED}
    lost = "select count(*) from work_items where losses > 0"
    with services.engine.connect() as connection:
        assert connection.scalar(text(lost)) == 0, "that a database was away is no fault of a customer"
    services.claims.hasten(QUEUE)
    assert "MongoDB cannot be reached" in str(due(services))
    own_mongo.start()
    own_mongo.wait_until_ready()

    def goes_on() -> bool:
        services.claims.hasten(QUEUE)
        return due(services) is True

    wait_for(goes_on, "MongoDB's client to find it again")
    figures_again = round_of(services, "run-2")
    assert all(marked(services, customer) == 30 for customer in customers)
    assert sum(f.marked for f in figures_again.values()) <= 30 * len(customers) - sum(f.marked for f in seen)
    assert job_instances.get(services.engine, asked.id).status == JobStatus.COMPLETED
    services.close()
