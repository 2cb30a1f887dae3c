"""What an upload leaves behind when names meet, and when it was cut off."""

from uuid import UUID

import pytest

from imgpipe_orchestration.errors import Retryable
from imgpipe_orchestration.listings import uploads
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.listings.conftest import drain, photo, rows


def sent(name: str = "a.jpg") -> uploads.Sent:
    data = photo()
    return uploads.Sent(name, lambda: data, len(data))


def test_two_ids_that_begin_alike_are_refused_and_the_upload_can_be_sent_again(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = ("00000000", "550e8400", "00000000", "550e8400")  # a listing's id, an image's, and so on
    given = (UUID(f"{start}-e29b-41d4-a716-44665544000{number}") for number, start in enumerate(starts))
    with monkeypatch.context() as alike:
        alike.setattr(uploads, "uuid4", lambda: next(given))
        uploads.upload(services, "Bike", [sent()])
        with pytest.raises(Retryable, match="send it again"):
            uploads.upload(services, "Bike", [sent()], idempotency_key="k")
    assert rows(services, "select file_name from image_queue") == [("bike-550e8400.webp",)]
    uploads.upload(services, "Bike", [sent()], idempotency_key="k")
    assert drain(services, "run-1").processed == 2


def test_names_that_databases_refuse_are_cleaned(services: Services) -> None:
    uploads.upload(services, "Bi\0ke \ud800", [sent("a\0\ud800.jpg")])
    assert rows(services, "select listing_title, original_name from image_queue") == [("Bike \ufffd", "a\ufffd.jpg")]


def test_a_key_of_one_user_means_nothing_to_another(services: Services) -> None:
    users = (1, 2, None, 1)
    answers = [uploads.upload(services, "Bike", [sent()], user_id=user, idempotency_key="k") for user in users]
    first, *others, again = [answer["data"]["images"][0]["id"] for answer in answers]
    assert first == again
    assert len({first, *others}) == 3
