"""Who asks for an image is counted by page or client, without a person in it, in a bounded number of rows."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from sqlalchemy import Engine, text

from imgpipe_orchestration.media.serving import callers
from imgpipe_orchestration.media.serving.callers import Key, named
from imgpipe_orchestration.storage.rows import connect, transaction
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.media.conftest import Gateway, picture

BROWSER = "Mozilla/5.0 (X11; Linux x86_64)"


@pytest.fixture
def engine(engine: Engine) -> Engine:
    """Of a database with two images."""
    with transaction(engine) as connection:
        connection.execute(
            text("""
                insert into media_files (main_api_id, user_id, data_type, kind, image_path, upload_day)
                select n, 1, 'profile', 'profile', '/temp_images/profiles/' || n, current_date
                from generate_series(1, 2) as n
            """)
        )
    return engine


@pytest.mark.parametrize(
    ("page", "program", "caller"),
    [
        ("https://Shop.Example:8443/basket?user=7#x", BROWSER, ("page", "shop.example")),
        ("https://anna:secret@shop.example/", BROWSER, ("page", "shop.example")),
        ("", "curl/8.5.0", ("client", "curl")),
        ("", "python-requests/2.32", ("client", "python-requests")),
        ("", BROWSER, ("client", "a browser that names no page")),
        ("about:blank", "", ("client", "unknown")),
        ("https://[broken", "\xff\x00", ("client", "unknown")),
        ("https://bücher.example/", "wget", ("client", "wget")),
    ],
)
def test_a_caller_is_a_host_or_a_program_and_nothing_more(page: str, program: str, caller: tuple[str, str]) -> None:
    assert named(page, program) == caller


def test_counts_add_up_over_flushes_and_over_gateways(engine: Engine) -> None:
    for n in (3, 4):
        counts = Counter(
            {Key(1, "page", "a.example", "grid", "avif"): n, Key(1, "page", "a.example", "zoom", "webp"): 1}
        )
        callers.write(engine, counts + Counter({Key(77, "page", "a.example", "grid", "avif"): 1}))
    with transaction(engine) as connection:
        (one,) = callers.of_image(connection, 1)
        assert (one.caller, one.requests, one.sizes, one.formats) == (
            "a.example",
            9,
            ["grid", "zoom"],
            ["avif", "webp"],
        )
        assert callers.of_image(connection, 77) == []  # there is no such image


def test_what_a_database_that_is_away_does_not_take_is_kept(engine: Engine) -> None:
    counting = callers.Callers()
    counting._counts.update({Key(1, "client", "curl", "grid", "avif"): 2})
    away = connect("postgresql://nobody@127.0.0.1:1/none")
    asyncio.run(counting.flush(away))
    asyncio.run(counting.flush(engine))
    with transaction(engine) as connection:
        assert [one.requests for one in callers.of_image(connection, 1)] == [2]
    away.dispose()


def test_the_page_of_an_image_names_who_asked_for_it(
    make_gateway: Callable[..., Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callers, "FLUSH_SECONDS", 0.2)
    gateway = make_gateway()
    gateway.upload(1, profile_image=picture(300, 200))
    gateway.run_due()
    for size in ("thumbnail", "grid"):
        assert gateway.get(f"/serve/1?size={size}", Referer="https://shop.example/a?b=c").status_code == 200
    shown = wait_for(
        # The two may be written one after the other.
        lambda: "grid, thumbnail" in (page := gateway.get("/media/1", Accept="text/html").text) and page,
        "the counts",
    )
    assert "shop.example" in shown and "b=c" not in shown
