"""The queries, on every server: what is pending, the guarded write, types, the toggle, indexes."""

import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import Decimal128, Int64, ObjectId
from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from imgpipe_orchestration.auto_marker import store
from imgpipe_orchestration.auto_marker.model import NOTHING, markable, pending
from imgpipe_orchestration.auto_marker.store import ImageConfigs, News, Page, create_indexes, missing_indexes
from imgpipe_orchestration.storage.documents import Documents
from imgpipe_orchestration_tests.mongo_servers import EMBEDDED, GIVEN, ferretdb

PENDING = {"customer_id": "c1", "image": "https://example.com/a.jpg", "short_summary": "s"}

GONE: dict[str, Any] = {}

IS_PENDING: dict[str, dict[str, Any]] = {
    "clean_image missing": {},
    "clean_image null": {"clean_image": None},
    "clean_image empty": {"clean_image": ""},
    "flag without image": {"auto_marked_cleaned": True},
}
IS_NOT: dict[str, dict[str, Any]] = {
    "image missing": {"image": ...},
    "image null": {"image": None},
    "image empty": {"image": ""},
    "summary missing": {"short_summary": ...},
    "summary null": {"short_summary": None},
    "summary empty": {"short_summary": ""},
    "cleaned": {"clean_image": "https://example.com/clean.jpg"},
    "clean_image false": {"clean_image": False},
    "clean_image zero": {"clean_image": 0},
    "another customer": {"customer_id": "c2"},
}


def _document(changes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**PENDING, **changes}.items() if value is not ...}


def counted(documents: Documents, *, opted_out: list[str]) -> dict[str, int]:
    return dict(News(documents).pending_by_customer(opted_out=opted_out))


def marked_of(documents: Documents, customer: str = "c1", *, skip: int = 0, limit: int = 50) -> Page:
    news = News(documents)
    return news.mark_page(customer, news.how_images_lack(customer), skip=skip, limit=limit, most=limit)


def test_pending_is_what_has_image_and_summary_and_no_clean_image(documents: Documents) -> None:
    news = documents.collection("news_document")
    wanted = [news.insert_one(_document(changes)).inserted_id for changes in IS_PENDING.values()]
    others = [news.insert_one(_document(changes)).inserted_id for changes in IS_NOT.values()]
    assert counted(documents, opted_out=[]) == {"c1": len(IS_PENDING), "c2": 1}
    assert counted(documents, opted_out=["c1"]) == {"c2": 1}
    before = {d["_id"]: d for d in news.find({"_id": {"$in": others}})}
    page = marked_of(documents)
    assert [d["_id"] for d in page.documents] == wanted
    assert (page.marked, page.problems) == (len(IS_PENDING), [])
    assert {d["_id"]: d for d in news.find({"_id": {"$in": others}})} == before


def test_a_marked_document_has_image_flag_and_moment_and_is_otherwise_unchanged(
    documents: Documents, any_mongo: str
) -> None:
    news = documents.collection("news_document")
    extra = {
        "n": Int64(2**60),
        "f": 1.5,
        "when": datetime(2026, 1, 20, 10, 0, 0, 123000, tzinfo=UTC),
        "oid": ObjectId(),
        "bytes": b"\x00\xff",
        "yes": True,
        "no": False,
        "none": None,
        "list": [1, {"deep": [True, None]}],
        "dollar": "$image",
        "object": {"b": 1, "a": "$x"},
    }
    if any_mongo == GIVEN and not ferretdb(documents):  # the others have no decimals
        extra["decimal"] = Decimal128("1.10")
    key = news.insert_one({**PENDING, **extra}).inserted_id
    assert marked_of(documents).marked == 1
    after = news.find_one({"_id": key})
    assert after is not None
    assert after.pop("clean_image") == PENDING["image"]
    assert after.pop("auto_marked_cleaned") is True
    moment = after.pop("clean_image_updated_at")
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1)
    assert after == {"_id": key, **PENDING, **extra}


@pytest.mark.parametrize(
    "image",
    ["$image", "$$NOW", 'it\'s "q" \\ %s', '{"$oid": "1"}', "true", "123", "ä😀\u2028\x01", " ", "x" * 100_000],
)
def test_an_images_text_is_data_whatever_it_looks_like(documents: Documents, image: str) -> None:
    news = documents.collection("news_document")
    key = news.insert_one({**PENDING, "image": image, "short_summary": "$summary"}).inserted_id
    assert marked_of(documents).marked == 1
    after = news.find_one({"_id": key})
    assert after is not None
    assert (after["clean_image"], after["image"], after["short_summary"]) == (image, image, "$summary")


def test_dotted_keys_and_a_megabyte_of_summary_change_nothing(documents: Documents) -> None:
    news = documents.collection("news_document")
    odd: dict[str, Any] = {"short_summary": "s" * 1_000_000}
    if not ferretdb(documents):  # which refuses such keys at the insert
        odd |= {"a.b": 1, "x": {"d.e": [1]}}
    key = news.insert_one({**PENDING, **odd}).inserted_id
    assert marked_of(documents).marked == 1
    after = news.find_one({"_id": key})
    assert after is not None
    assert {name: after[name] for name in odd} == odd


@pytest.mark.parametrize(
    "image", [5, 1.5, True, {"url": "x"}, ["x"], [], datetime(2026, 1, 1, tzinfo=UTC)], ids=lambda v: type(v).__name__
)
def test_an_image_that_is_no_text_is_a_problem_of_its_own_document(documents: Documents, image: Any) -> None:
    news = documents.collection("news_document")
    bad = news.insert_one({**PENDING, "image": image}).inserted_id
    news.insert_one(dict(PENDING))
    page = marked_of(documents)
    assert page.marked == 1
    assert [key for key, _ in page.problems] == ([bad] if image != [] or page.problems else [])
    after = news.find_one({"_id": bad})
    assert after is not None
    assert "clean_image" not in after


def test_only_what_can_be_marked_calls_for_a_run(documents: Documents) -> None:
    collection, news = documents.collection("news_document"), News(documents)
    collection.insert_many(
        [
            {**PENDING, "image": 5},
            {**PENDING, "customer_id": 7},
            {**PENDING, "customer_id": None},
            {**PENDING, "customer_id": ""},
            {**PENDING, "customer_id": "off"},
        ]
    )
    assert not news.any_to_mark(opted_out=["off"])
    assert news.any_to_mark(opted_out=[])


@pytest.mark.parametrize("nothing", NOTHING)
@pytest.mark.parametrize(
    "odd",
    [
        {"image": {"href": "https://example.com/a.jpg"}},
        {"image": ["https://example.com/a.jpg"]},
        {"image": []},
        {"image": datetime(2026, 1, 1, tzinfo=UTC)},
        {"customer_id": ["c1"]},
        {"customer_id": {"a": 1}},
    ],
    ids=str,
)
def test_what_a_server_takes_for_a_text_calls_for_no_run_and_hides_none(
    documents: Documents, odd: dict[str, Any], nothing: str | None
) -> None:
    collection, news = documents.collection("news_document"), News(documents)
    collection.insert_many([{**PENDING, **odd, "clean_image": nothing} for _ in range(3)])
    assert not news.any_to_mark(opted_out=[])
    collection.insert_one({**PENDING, "clean_image": nothing})
    assert news.any_to_mark(opted_out=[])


def test_a_tick_does_not_read_all_images_to_find_one_that_is_good(documents: Documents) -> None:
    image = "data:image/png;base64," + "A" * 1_000_000
    documents.collection("news_document").insert_many([{**PENDING, "image": image} for _ in range(20)])
    news = News(documents)
    tracemalloc.start()
    try:
        assert news.any_to_mark(opted_out=[])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 8_000_000


def test_a_page_is_the_oldest_first_and_skips_what_it_is_told_to(documents: Documents) -> None:
    collection = documents.collection("news_document")
    ids = list(collection.insert_many([{**PENDING, "n": n} for n in range(10)]).inserted_ids)
    assert [d["_id"] for d in marked_of(documents, skip=2, limit=3).documents] == ids[2:5]
    assert [d["_id"] for d in marked_of(documents, skip=0, limit=3).documents] == [*ids[:2], ids[5]]


@pytest.mark.slow
def test_a_page_of_large_images_ends_early_and_the_next_goes_on_behind_it(documents: Documents) -> None:
    image = "data:image/png;base64," + "A" * 3_000_000
    documents.collection("news_document").insert_many([{**PENDING, "image": image} for _ in range(7)])
    pages = []
    while not pages or not pages[-1].last:
        pages.append(marked_of(documents, limit=1000))
    assert [(len(page.documents), page.marked) for page in pages] == [(3, 3), (3, 3), (1, 1)]


@pytest.mark.parametrize(
    "in_between",
    [
        {"clean_image": "by hand"},
        {"clean_image": PENDING["image"], "auto_marked_cleaned": True},
        {"image": "another"},
        {"short_summary": ""},
        {"short_summary": None},
        GONE,
    ],
    ids=["cleaned", "marked", "another image", "summary emptied", "summary null", "summary gone"],
)
def test_a_document_changed_between_find_and_write_is_left_alone(
    documents: Documents, in_between: dict[str, Any]
) -> None:
    collection = documents.collection("news_document")
    ids = list(collection.insert_many([dict(PENDING) for _ in range(3)]).inserted_ids)
    stale = list(collection.find({"customer_id": "c1"}, {"image": 1, "clean_image": 1}))
    change = {"$unset": {"short_summary": 1}} if in_between is GONE else {"$set": in_between}
    collection.update_one({"_id": ids[1]}, change)
    before = collection.find_one({"_id": ids[1]})
    page = Page(stale, good=stale)
    News(documents)._mark("c1", page)
    assert (page.marked, page.problems) == (2, [])
    assert collection.find_one({"_id": ids[1]}) == before


@pytest.mark.parametrize(
    "customer", ["$c.x", "a.b", "it's", "a\nb", "ä😀", "a/b?c=d&e", " ", "%00", "{}", "null", "7", "-1", "x" * 1024]
)
def test_an_odd_customer_id_is_that_customer_and_nobody_else(documents: Documents, customer: str) -> None:
    collection, configs = documents.collection("news_document"), ImageConfigs(documents)
    collection.insert_many([{**PENDING, "customer_id": customer}, dict(PENDING)])
    assert counted(documents, opted_out=["c1"]) == {customer: 1}
    assert marked_of(documents, customer).marked == 1
    assert counted(documents, opted_out=[]) == {"c1": 1}
    configs.add_new(customer)
    configs.switch(customer, False)
    assert configs.opted_out() == [customer]


def test_a_customer_id_that_is_no_text_is_nobodys(documents: Documents, any_mongo: str) -> None:
    odd: list[Any] = [None, 7, True, {"a": 1}, ObjectId()]
    documents.collection("news_document").insert_many([{**PENDING, "customer_id": customer} for customer in odd])
    found = News(documents).pending_by_customer(opted_out=[])
    assert found.total() == len(odd)
    if any_mongo != EMBEDDED:  # whose groups write objects and ids as texts
        assert list(found) == [""]


def test_a_config_whose_customer_id_is_no_text_hides_nobody_who_is_off(documents: Documents) -> None:
    odd: list[Any] = [{"a": 1}, 7, None, ObjectId(), "off"]
    documents.collection("image_config").insert_many([{"customer_id": c, "auto_mark_cleaned": False} for c in odd])
    assert ImageConfigs(documents).opted_out() == ["off"]


def test_a_new_customer_gets_one_document_switched_on(documents: Documents) -> None:
    configs = ImageConfigs(documents)
    assert configs.of("c1") == []
    configs.add_new("c1")
    configs.add_new("c1")
    (config,) = configs.of("c1")
    assert config["auto_mark_cleaned"] is True
    assert abs(datetime.now(UTC) - config["created_at"]) < timedelta(minutes=1)
    assert config["updated_at"] == config["created_at"]
    assert configs.opted_out() == []


def test_switching_keeps_everything_else_of_the_document(documents: Documents) -> None:
    configs = ImageConfigs(documents)
    created = datetime(2026, 1, 20, 10, tzinfo=UTC)
    kept = {"customer_id": "c1", "created_at": created, "theme": {"dark": True}}
    documents.collection("image_config").insert_one(kept)
    configs.switch("c1", False)
    (config,) = configs.of("c1")
    assert config["auto_mark_cleaned"] is False
    assert (config["created_at"], config["theme"]) == (created, {"dark": True})
    assert isinstance(config["updated_at"], datetime)
    configs.switch("c1", True)
    assert configs.of("c1")[0]["auto_mark_cleaned"] is True
    configs.switch("fresh", False)
    assert configs.opted_out() == ["fresh"]


def test_indexes_are_created_once_and_found_missing_before(documents: Documents) -> None:
    assert len(missing_indexes(documents)) == 5
    assert create_indexes(documents) == []
    assert missing_indexes(documents) == []
    assert create_indexes(documents) == []
    documents.collection("image_config").insert_one({"customer_id": "c1"})
    ImageConfigs(documents).add_new("c1")
    assert len(ImageConfigs(documents).of("c1")) == 1


@pytest.mark.parametrize("what", ["create_index", "index_information"])
def test_a_user_who_may_not_list_or_create_indexes_is_told_so_once(
    documents: Documents, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OperationFailure("not authorized on ichat", 13)

    monkeypatch.setattr(Collection, what, refuse)
    (told,) = create_indexes(documents)
    assert "may not list or create indexes" in told


@pytest.mark.parametrize("nothing", NOTHING)
def test_what_a_tick_asks_is_found_by_index_whatever_else_there_is(documents: Documents, nothing: str | None) -> None:
    if ferretdb(documents):
        pytest.skip("over SQLite it uses no index but that of _id")
    create_indexes(documents)
    collection = documents.collection("news_document")
    collection.insert_many([{**PENDING, "clean_image": "x"} for _ in range(100)])
    lacking = {"$eq": nothing}
    for query in (markable(lacking, opted_out=["off"]), pending({"$nin": ["off"]}, lacking), pending("c1", lacking)):
        plan = str(collection.find(query).explain())
        assert "COLLSCAN" not in plan
        assert "SCAN news_document'" not in plan
        assert "clean_image_1_customer_id_1" in plan or "idx_news_document_clean_image_customer_id" in plan, plan


def test_a_document_marked_lately_that_lost_something_is_found(
    documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection, news = documents.collection("news_document"), News(documents)
    collection.insert_many([dict(PENDING) for _ in range(3)])
    marked_of(documents)
    assert news.lacking(limit=10) == []
    first, second, old = collection.find({})
    long_ago = {"clean_image_updated_at": datetime.now(UTC) - timedelta(days=8), "short_summary": ""}
    collection.update_one({"_id": old["_id"]}, {"$set": long_ago})
    assert len(news.lacking(limit=10)) == 1
    monkeypatch.setattr(store, "LOOKED_OVER", 2)
    collection.update_one({"_id": first["_id"]}, {"$set": {"clean_image": ""}})
    collection.update_one({"_id": second["_id"]}, {"$unset": {"short_summary": 1}})
    assert {(str(d["_id"]), d["lacks"]) for d in news.lacking(limit=10)} == {
        (str(first["_id"]), "clean_image"),
        (str(second["_id"]), "short_summary"),
    }
