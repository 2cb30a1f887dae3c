"""BACKGROUND_MODEL, from the setting to the manifest."""

from __future__ import annotations

from collections.abc import Callable

from imgpipe_orchestration.media.model import Step
from imgpipe_orchestration.media.remake import order
from imgpipe_orchestration_tests.media.conftest import Gateway, picture


def test_a_logo_is_made_without_a_model_that_cannot_be_used_and_again_once_another_is_named(
    make_gateway: Callable[..., Gateway],
) -> None:
    gateway = make_gateway(background_model="nobodys-model")
    gateway.upload(1, logo_image=picture())
    gateway.run_due()
    ((day, notes),) = gateway.rows("select upload_day::text, notes from media_files")
    assert any("the model nobodys-model cannot be used (operators: imgpipe doctor)" in note for note in notes)
    assert gateway.get("/serve/1?size=detail").status_code == 200
    assert order(gateway.services, day, Step.RESIZE_OPTIMIZE) == 0
    assert order(make_gateway(background_model="another").services, day, Step.RESIZE_OPTIMIZE) == 1
