"""The focus of an image, set by hand: what its crops keep."""

from __future__ import annotations

from collections.abc import Sequence

from imgpipe_orchestration.errors import BadInput, Conflict
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.media import store
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.claims import Item
from imgpipe_orchestration.storage.rows import transaction


def set_focus(services: Services, media_id: int, box: Sequence[float] | None) -> None:
    """Set the focus, or with None leave it to the engine. The variants are made again; the old ones are served until
    then.

    Args:
        box: left, top, right, bottom in shares of width and height.

    Raises:
        BadInput: it is no box.
        NotFound: there is no such image.
        Conflict: it has no variants yet.
    """
    if box is not None and not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
        raise BadInput("box is left, top, right, bottom from 0 to 1, with left < right and top < bottom.", field="box")
    with transaction(services.engine) as connection:
        media = store.media_file(connection, media_id)
        if media.recipe is None:
            raise Conflict(f"Media {media_id} has no variants yet; it is {media.status}.")
        audit.note(before={"focus": media.focus}, after={"focus": box})
        store.set_focus(connection, media_id, box)
        item = Item(media_id, str(media.user_id), media.upload_day.isoformat())
        services.claims.enqueue(connection, store.REMAKE_VARIANTS, [item], again=True)
