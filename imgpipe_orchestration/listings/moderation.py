"""What is judged of the listings: their images."""

from sqlalchemy import Connection, text

from imgpipe_orchestration.listings import store
from imgpipe_orchestration.listings.lifecycle import LISTINGS
from imgpipe_orchestration.moderation.model import Subject
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services


def _picture(services: Services, number: int) -> bytes:
    with transaction(services.engine) as connection:
        work = store.work(connection, number)
    return services.listings_bucket.get(work.original_key, size=work.bytes)


def _facts(connection: Connection, number: int) -> tuple[int | None, str]:
    store.work(connection, number)
    return connection.scalar(text("select user_id from image_queue where id = :id"), {"id": number}), ""


LISTED = Subject("listings", LISTINGS, "image_queue", _picture, _facts)
