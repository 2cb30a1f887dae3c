"""Search: by words and meaning, colour, likeness; duplicates in three kinds that are not mixed."""

import io
from typing import Any

import pytest
from PIL import Image, ImageDraw
from sqlalchemy import Connection, Engine, text

from imgpipe_orchestration.media import intake, search
from imgpipe_orchestration.media.model import DataType
from imgpipe_orchestration.media.search import CANDIDATES, Filters, by_text, latest
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.plans import reading


def found(gateway: Gateway, **query: Any) -> list[dict[str, Any]]:
    answer = gateway.session.get(f"{gateway.url}/api/media/search", params=query, headers=gateway.as_worker, timeout=30)
    assert answer.status_code == 200, answer.text
    images: list[dict[str, Any]] = answer.json()["images"]
    return images


def scene(colour: str, *, format: str = "PNG", size: tuple[int, int] = (600, 400), **options: Any) -> bytes:
    """A disc of one colour on white."""
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).ellipse((40, 20, size[0] - 100, size[1] - 20), fill=colour)
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def test_words_meaning_colour_and_looks_each_find_what_they_should(seeing_gateway: Gateway) -> None:
    gateway = seeing_gateway
    red = scene("#d02020")
    for data in (red, scene("#2040d0"), picture(seed=4), scene("#d02020", format="JPEG", quality=60)):
        gateway.upload(1, product_image=data)
    gateway.finish(2, profile_image=picture(seed=5))
    gateway.rows("""
            update media_ai_analysis set alt_text = 'A lighthouse above the harbour', detected_text = 'PIER 7'
            where media_id = 3
        """)

    assert found(gateway, text="lighthouses")[0]["media_id"] == "3"
    assert found(gateway, text='"pier 7"')[0]["media_id"] == "3"
    assert found(gateway, text="lighthouses")[0]["why"].startswith("words")
    own = gateway.rows("select alt_text from media_ai_analysis where media_id = 2")[0][0]
    for asked in (own, f'{own} -zebra -"striped horse"'):
        assert "meaning" in {one["media_id"]: one["why"] for one in found(gateway, text=asked)}["2"]
    assert "2" not in {one["media_id"] for one in found(gateway, text=f"{own} -{own.split()[-1].strip('.')}")}

    gateway.rows("update media_files set original_name = 'zebra.jpg' where id = 2 returning 1")
    assert "2" not in {one["media_id"] for one in found(gateway, text=f"{own} -zebra")}

    by_red = found(gateway, color="c82424")
    assert {one["media_id"] for one in by_red[:2]} == {"1", "4"}
    assert "2" not in {one["media_id"] for one in by_red}
    assert found(gateway, color="2040d0")[0]["media_id"] == "2"

    alike = found(gateway, similar_to=1)
    assert alike[0]["why"] == "looks"
    assert alike[0]["distance"] <= 10
    assert "1" not in {one["media_id"] for one in alike}

    assert [one["media_id"] for one in found(gateway, user_id=2)] == ["5"]
    assert [one["media_id"] for one in found(gateway, limit=2)] == ["5", "4"]
    assert [one["media_id"] for one in found(gateway, limit=2, before=4)] == ["3", "2"]
    bought = gateway.rows("select count(*) from paid_call_uses where item = 'search' and outcome = 'bought'")[0][0]
    assert bought == 3, "the same question is bought once"


@pytest.mark.parametrize(
    "name, asked, others",
    [
        ("IMG_2041.jpg", ["IMG_2041.jpg", "img_2041", "img-2041", "2041"], ["IMG_20", "IMG_2042.jpg", "2041 -img"]),
        ("blue-bowl (2).final.PNG", ["blue-bowl (2).final.PNG", "bowl blue", '"blue bowl"'], ['"bowl blue"', "bowls"]),
        ("photo - Copy.jpg", ["photo - Copy.jpg", "copy - photo"], ["photo -copy"]),
        ("Zoë's Füße.webp", ["Zoë's Füße.webp", "Füße"], ["Zoe"]),
        ("青い花瓶.jpg", ["青い花瓶.jpg", "青い花瓶"], ["花瓶"]),
    ],
)
def test_an_image_is_found_by_the_words_in_its_files_name(
    gateway: Gateway, name: str, asked: list[str], others: list[str]
) -> None:
    for user, called in ((1, name), (2, "another.jpg")):
        part = {"profile_image": (called, picture(seed=user), "image/jpeg")}
        gateway.session.patch(f"{gateway.url}/users/me", files=part, headers=gateway.as_user(user), timeout=30)
    intake.take_in(gateway.services)
    for words in asked:
        assert [(one["original_name"], one["why"]) for one in found(gateway, text=words)] == [(name, "file name")]
    assert [found(gateway, text=words) for words in others] == [[]] * len(others)
    assert found(gateway, text=asked[0], user_id=2) == []


def test_duplicates_come_in_three_kinds(gateway: Gateway) -> None:
    first = scene("#208040", compress_level=9)
    same_pixels = scene("#208040", compress_level=1)
    assert first != same_pixels
    for data in (first, first, same_pixels, scene("#208040", size=(590, 394)), picture(seed=8)):
        gateway.upload(1, product_image=data)
    gateway.run_due()
    answer = gateway.get("/api/media/duplicates/1", **gateway.as_worker).json()
    kinds = ("identical_bytes", "identical_pixels", "similar")
    ids = {kind: [one["media_id"] for one in answer[kind]] for kind in kinds}
    assert ids == {"identical_bytes": ["2"], "identical_pixels": ["3"], "similar": ["4"]}
    assert 0 <= answer["similar"][0]["distance"] <= 10


def test_a_search_without_openai_goes_by_words_and_says_so(gateway: Gateway) -> None:
    answer = gateway.get("/api/media/search?text=bowl", **gateway.as_worker).json()
    assert answer["images"] == []
    assert "words only" in answer["note"]
    for query in ("text=a&color=ff0000", "color=red", "limit=0", "similar_to=0", "text=%00", "text=a&before=9"):
        assert gateway.get(f"/api/media/search?{query}", **gateway.as_worker).status_code == 422
    assert gateway.get("/api/media/search?similar_to=12", **gateway.as_worker).status_code == 404
    assert gateway.get("/api/media/search").status_code == 401


def fill(
    connection: Connection, *, first: int = 1, type_: str = "'product'", alt: str = "", analysed: bool = True
) -> None:
    """Insert 4,000 images `IMG_{i}.jpg` (with an alternative text), and let the planner know of them."""
    insert = f"""
        insert into media_files (main_api_id, user_id, data_type, kind, image_path, upload_day, original_name)
        select i, 7, {type_}, 'product', '/a/' || i, current_date, 'IMG_' || i || '.jpg'
        from generate_series({first}, {first} + 3999) i
    """
    connection.execute(text(insert))
    if alt:
        query = "insert into media_ai_analysis (media_id, alt_text) select id, :alt from media_files"
        connection.execute(text(query), {"alt": alt})
    if analysed:
        connection.execute(text("analyze media_files, media_ai_analysis"))


@pytest.mark.parametrize("analysed", [True, False])
def test_a_name_is_found_without_reading_every_image_even_without_statistics(engine: Engine, analysed: bool) -> None:
    with transaction(engine) as connection:
        connection.execute(text("alter table media_files set (autovacuum_enabled = false)"))
        fill(connection, analysed=analysed)
        with reading(engine, "words_of_name") as read:
            found = by_text(connection, "img_2041", None, Filters(), limit=60)
        assert [one.id for one in found] == [2041]
        assert max(read) == 1
        with reading(engine, "words_of_name") as read:
            assert len(by_text(connection, "jpg", None, Filters(), limit=60)) == 60
        assert sorted(read)[-2:] == [CANDIDATES, 4000], "the bitmap of the index has them all, and no other step"


def test_what_is_left_out_comes_back_by_no_other_ranking(engine: Engine) -> None:
    insert = """
        with files as (
            insert into media_files (main_api_id, user_id, data_type, kind, image_path, upload_day, original_name)
            select n, 7, 'product', 'product', '/a/' || n, current_date, name
            from unnest(array['many.jpg', 'landscape.jpg', 'a.jpg', 'many.png', null, 'striped-horse.jpg'])
                with ordinality as t (name, n) returning id
        )
        insert into media_ai_analysis (media_id, alt_text) select id, alt from files
        join (values (1, 'A landscape'), (2, 'Too many bowls'), (3, 'Many bowls'), (5, 'Many people'),
            (6, 'Many horses, striped')) as a (n, alt) on id = n
    """
    with transaction(engine) as connection:
        connection.execute(text(insert))
        for asked, ids in {
            "many -landscape": {3, 4, 5, 6},
            'many -landscapes -"striped horse"': {2, 3, 4, 5},
            "many -the -bowl": {1, 4, 5, 6},
            "landscape -many": set(),
            "-many": set(),
        }.items():
            assert {one.id for one in by_text(connection, asked, None, Filters(), limit=60)} == ids, asked
        fill(connection, first=101)
        with reading(engine, "live_media") as read:
            assert len(by_text(connection, "img_4001 many -landscape", None, Filters(), limit=60)) == 0
            assert len(by_text(connection, "img_4001 -landscape", None, Filters(), limit=60)) == 1
        assert max(read) < 10


def test_of_a_word_that_all_images_have_only_so_many_are_ranked(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "RANKED", 100)
    with transaction(engine) as connection:
        fill(connection, alt="A bowl")
        with reading(engine, "a.words @@") as read:
            assert len(by_text(connection, "bowls", None, Filters(), limit=60)) == 60
    assert sorted(read)[-2] <= 100, "the bitmap of the index may have them all, and no other step"


def test_a_rare_type_is_found_without_reading_every_image(engine: Engine) -> None:
    with transaction(engine) as connection:
        fill(connection, type_="case when i % 2000 = 1 then 'logo' else 'product' end")
        with reading(engine, "from live_media") as read:
            found = latest(connection, Filters(data_type=DataType.LOGO), limit=60)
    assert [one.id for one in found] == [2001, 1]
    assert max(read) == 2
