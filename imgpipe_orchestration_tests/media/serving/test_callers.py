"""Who asks for an image is counted by page or client, without a person in it, in a bounded number of rows."""

from collections.abc import Callable

import pytest

from imgpipe_orchestration.media.serving import callers
from imgpipe_orchestration.media.serving.callers import named
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.media.conftest import Gateway, picture

BROWSER = "Mozilla/5.0 (X11; Linux x86_64)"


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


def test_the_page_of_an_image_names_who_asked_for_it(
    make_gateway: Callable[..., Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callers, "FLUSH_SECONDS", 0.2)
    gateway = make_gateway()
    gateway.finish(1, profile_image=picture(300, 200))
    for size in ("thumbnail", "grid"):
        assert gateway.get(f"/serve/1?size={size}", Referer="https://shop.example/a?b=c").status_code == 200
    shown = wait_for(
        # The two may be written one after the other.
        lambda: "grid, thumbnail" in (page := gateway.get("/media/1", Accept="text/html").text) and page,
        "the counts",
    )
    assert "shop.example" in shown and "b=c" not in shown
