"""Finding images by state and owner, by words and meaning, by file name, by colour, by likeness; and duplicates.

Every result says by which measure it was found (words, file name, meaning, colour or looks), because a rank alone does
not. Nearest neighbours come from HNSW indexes, which are fast and approximate; equality of bytes and pixels is exact.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer
from sqlalchemy import Connection, text

from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.media.embedding import space_of, vector_of
from imgpipe_orchestration.media.model import DataType, MediaStatus
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services

ALIKE_BITS = 10
"""Most bits of 64 in which the perceptual hashes of pictures that look alike differ (Zauner 2010)."""
PLAIN_BITS = 8
"""Most bits set in the perceptual hash of a picture without shapes. All of these have about the same hash, so nothing
looks like them. In others about half of the bits are set."""
LIKE_FAR = 0.4
"""Cosine distance past which two images do not show similar things: unrelated captions are 0.6 to 0.9 apart."""
MEANING_FAR = 0.8
"""Cosine distance past which two texts are unrelated."""
COLOUR_SHARE = 0.05
"""Share of an image that a colour must have: nearly every photograph has a little of each."""
COLOUR_FAR = 0.1
"""Distance in Oklab past which two colours count as different."""
CANDIDATES = 400
"""Neighbours that an index examines, and images that it gives for a word of many names."""
RANKED = 5_000
"""Images that are ranked by words: nearly all have a common one."""
_EXCLUDED = re.compile(r"""(?<!\S)-("[^"]*"|\S+)""")
"""A word or a phrase with a hyphen before it."""
_FUSION = 60
"""The constant of reciprocal rank fusion (Cormack, Clarke, Büttcher 2009)."""


class Found(BaseModel):
    """An image that was found."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    id: Annotated[int, PlainSerializer(str, return_type=str)] = Field(serialization_alias="media_id")
    user_id: int
    data_type: DataType
    original_name: str | None
    status: MediaStatus
    width: int | None
    height: int | None
    alt_text: str | None
    placeholder: str | None = Field(description="A tiny blurred picture, as a data URL.")
    private: bool = Field(description="Found by `user_id` only; the URL is signed for its owner.")
    url: str = ""
    created_at: datetime
    why: str = Field("", description="words, number, file name, meaning, colour, looks; empty in a plain list.")
    distance: float | None = Field(
        None,
        description="By meaning: cosine, 0 to 2. By colour: Oklab. By looks: bits of 64. None where there is none.",
    )
    error: str | None = Field(exclude=True)
    held: bool = Field(exclude=True)
    has_variants: bool = Field(exclude=True)


@dataclass(frozen=True, slots=True)
class Filters:
    """Conditions on all results; None means any. Private images are only found together with `user_id`; `without` are
    words and phrases, with `or` between them, that neither an image's analysis nor its file's name may have."""

    status: MediaStatus | None = None
    data_type: DataType | None = None
    user_id: int | None = None
    held: bool | None = None
    without: str | None = None


_COLUMNS = """
    f.id, f.user_id, f.data_type, f.original_name, f.status, f.error, f.width, f.height, f.created_at, f.private,
    f.held, f.recipe is not null as has_variants, a.alt_text, a.placeholder
"""
_TABLES = "live_media f left join media_ai_analysis a on a.media_id = f.id"


def find(
    services: Services,
    filters: Filters,
    *,
    words: str = "",
    colour: str = "",
    similar_to: int | None = None,
    before: int | None = None,
    limit: int,
) -> tuple[list[Found], str]:
    """By one of words, colour (six digits, with or without #) and likeness, best first; with none of them the newest.
    Also says what the search had to do without.

    Raises:
        NotFound: as `like`.
    """
    meant = _EXCLUDED.sub(" ", words).strip()
    vector, note = vector_of(services, meant) if meant else (None, "")
    with transaction(services.engine) as connection:
        if words:
            return by_text(connection, words, vector, filters, limit=limit), note
        if colour:
            return by_colour(connection, "#" + colour.lstrip("#"), filters, limit=limit), note
        if similar_to is not None:
            return like(connection, similar_to, filters, limit=limit), note
        return latest(connection, filters, before=before, limit=limit), note


def latest(connection: Connection, filters: Filters, *, before: int | None = None, limit: int) -> list[Found]:
    """The newest first; `before` is the last id of the previous page."""
    where, values = _where(filters, *(["f.id < :before"] if before is not None else []))
    query = f"select {_COLUMNS} from {_TABLES} where {where} order by f.id desc limit :limit"
    return _rows(connection, query, values | {"before": before, "limit": limit})


def ids(connection: Connection, filters: Filters, *, limit: int) -> list[int]:
    """All ids that the filters let through, the newest first."""
    where, values = _where(filters)
    query = text(f"select f.id from live_media f where {where} order by f.id desc limit :limit")
    return list(connection.scalars(query, {**values, "limit": limit}))


def by_text(
    connection: Connection, words: str, vector: Sequence[float] | None, filters: Filters, *, limit: int
) -> list[Found]:
    """By words in alt text, subject, style, labels and text in the picture, by media id, by words in the file's name,
    and, if a vector is given, by meaning. Best first; the rankings are combined by reciprocal rank fusion.

    A hyphen before a word leaves out what has the word. One between spaces does not, though PostgreSQL takes it so: it
    is in names like "photo - Copy.jpg".
    """
    words = re.sub(r"(?<!\S)-+(?!\S)", " ", words)
    without = " or ".join(_EXCLUDED.findall(words))  # by every ranking: one would bring back what another leaves out
    filters = replace(filters, without=without or None)
    rankings = [_by_words(connection, words, filters, limit)]
    # The words' query holds the table until the end: no rebuild of the embeddings can end in between.
    if vector is not None and space_of(connection).dimensions == len(vector):
        rankings.append(_by_meaning(connection, vector, filters, limit))
    rankings.insert(1, _by_name(connection, words, filters, limit))  # last, for it limits the planner
    scores: dict[int, float] = {}
    found: dict[int, Found] = {}
    for ranking in rankings:
        for place, one in enumerate(ranking):
            scores[one.id] = scores.get(one.id, 0.0) + 1 / (_FUSION + place)
            known = found.get(one.id)
            found[one.id] = one if known is None else one.model_copy(update={"why": f"{known.why}, {one.why}"})
    return sorted(found.values(), key=lambda one: -scores[one.id])[:limit]


def by_colour(connection: Connection, colour: str, filters: Filters, *, limit: int) -> list[Found]:
    """Images with much of a colour (`#rrggbb`) or of very similar ones. `distance` is in Oklab."""
    where, values = _where(filters)
    query = f"""
        with near as (
            select c.media_id, c.share, c.lab <-> oklab_of(:colour) as distance
            from media_colours c join live_media f on f.id = c.media_id
            where {where} order by c.lab <-> oklab_of(:colour) limit {CANDIDATES}
        ),
        images as (
            select media_id, sum(share) as share, min(distance) as distance from near
            where distance <= {COLOUR_FAR} group by media_id having sum(share) >= {COLOUR_SHARE}
        )
        select {_COLUMNS}, images.distance from images join {_TABLES} on f.id = images.media_id
        order by images.share * (1 - images.distance / {COLOUR_FAR}) desc, f.id desc limit :limit
    """
    _look_far(connection)
    return _rows(connection, query, values | {"colour": colour, "limit": limit}, "colour")


def like(connection: Connection, media_id: int, filters: Filters, *, limit: int) -> list[Found]:
    """Images similar to another: first those that look alike (bits), then those that show similar things (cosine).

    Raises:
        NotFound: there is no such image, it has not been analysed, or it is private and of another user than
            `filters` names.
    """
    query = text("""
        select a.phash, cast(a.embedding as real[]) as embedding
        from media_ai_analysis a join live_media f on f.id = a.media_id
        where f.id = :id and (not f.private or f.user_id = :user_id)
    """)
    own = connection.execute(query, {"id": media_id, "user_id": filters.user_id}).one_or_none()
    if own is None or own.phash is None:
        raise NotFound(f"Media {media_id} does not exist, is private or is not analysed yet: it cannot be compared.")
    found = {one.id: one for one in _by_looks(connection, media_id, own.phash, filters, limit)}
    if own.embedding is not None:
        for one in _by_meaning(connection, own.embedding, filters, limit + 1):
            if one.distance is not None and one.distance <= LIKE_FAR:
                found.setdefault(one.id, one)
    found.pop(media_id, None)
    return list(found.values())[:limit]


def duplicates(connection: Connection, media_id: int, *, limit: int = 60) -> dict[str, list[Found]]:
    """The duplicates of an image, each in the strictest kind that fits: `identical_bytes`, `identical_pixels` in
    different bytes, and `similar`, which look alike (`distance` in bits of the perceptual hash). Private ones are left
    out.

    Raises:
        NotFound: there is no such image.
    """
    query = text(f"select f.sha256, a.pixel_sha256, a.phash from {_TABLES} where f.id = :id")
    own = connection.execute(query, {"id": media_id}).one_or_none()
    if own is None:
        raise NotFound(f"There is no media {media_id}.")
    seen = {media_id}

    def new(found: list[Found]) -> list[Found]:
        kept = [one for one in found if one.id not in seen][:limit]
        seen.update(one.id for one in kept)
        return kept

    def same(column: str, value: str | None, why: str) -> list[Found]:
        query = f"""
            select {_COLUMNS}, cast(0 as real) as distance from {_TABLES}
            where {column} = :value and not f.private order by f.id limit :limit
        """
        return new(_rows(connection, query, {"value": value, "limit": limit + len(seen)}, why))

    found = {
        "identical_bytes": same("f.sha256", own.sha256, "identical bytes"),
        "identical_pixels": same("a.pixel_sha256", own.pixel_sha256, "identical pixels"),
    }
    alike = [] if own.phash is None else _by_looks(connection, media_id, own.phash, Filters(), limit + len(seen))
    return found | {"similar": new(alike)}


# --- one measure each ------------------------------------------------------------------------------------------------


def _by_words(connection: Connection, words: str, filters: Filters, limit: int) -> list[Found]:
    """The best of those with the words; of more than RANKED those that the index gives first."""
    where, values = _where(filters, "a.words @@ question")
    query = f"""
        with worded as materialized (
            select f.id, a.words as said, question from {_TABLES}, websearch_to_tsquery('english', :words) as question
            where {where} limit {RANKED}
        ), best as (select id, ts_rank_cd(said, question) as rank from worded order by 2 desc, id desc limit :limit)
        select {_COLUMNS} from best join {_TABLES} on f.id = best.id order by best.rank desc, f.id desc
    """
    found = _rows(connection, query, values | {"words": words, "limit": limit}, "words")
    number = words.strip().lstrip("#")
    if number.isdecimal() and len(number) <= 18:
        where, values = _where(filters, "f.id = :id")
        query = f"select {_COLUMNS} from {_TABLES} where {where}"
        named = _rows(connection, query, values | {"id": int(number)}, "number")
        found = [*named, *(one for one in found if one.id not in {other.id for other in named})]
    return found


def _by_name(connection: Connection, words: str, filters: Filters, limit: int) -> list[Found]:
    """The newest of those whose file's name has the words; of more than CANDIDATES those that the index gives first."""
    where, values = _where(filters, "to_tsvector('simple', words_of_name(f.original_name)) @@ question")
    query = f"""
        with named as materialized (
            select f.id from live_media f, websearch_to_tsquery('simple', words_of_name(:words)) as question
            where {where} limit {CANDIDATES}
        )
        select {_COLUMNS} from named join {_TABLES} on f.id = named.id order by f.id desc limit :limit
    """
    # The planner does not know how rare a name is: it would look for one in every image there is.
    connection.execute(
        text("select set_config('enable_seqscan', 'off', true), set_config('enable_indexscan', 'off', true)")
    )
    return _rows(connection, query, values | {"words": words, "limit": limit}, "file name")


def _by_meaning(connection: Connection, vector: Sequence[float], filters: Filters, limit: int) -> list[Found]:
    where, values = _where(filters, "m.embedding is not null")
    values |= {"vector": str(list(vector)), "limit": limit}
    distance = "m.embedding <=> cast(:vector as vector)"
    return _nearest(connection, distance, MEANING_FAR, where, values, "meaning")


def _by_looks(connection: Connection, media_id: int, looks: int, filters: Filters, limit: int) -> list[Found]:
    if (looks & (1 << 64) - 1).bit_count() <= PLAIN_BITS:
        return []
    where, values = _where(filters, "m.phash is not null", "f.id <> :own")
    values |= {"looks": looks, "own": media_id, "limit": limit}
    distance = "cast(m.phash as bit(64)) <~> cast(cast(:looks as bigint) as bit(64))"
    return _nearest(connection, distance, ALIKE_BITS, where, values, "looks")


def _nearest(
    connection: Connection, distance: str, far: float, where: str, values: dict[str, Any], why: str
) -> list[Found]:
    query = f"""
        with near as (
            select m.media_id, {distance} as distance from media_ai_analysis m join live_media f on f.id = m.media_id
            where {where} order by {distance} limit :limit
        )
        select {_COLUMNS}, near.distance from near join {_TABLES} on f.id = near.media_id
        where near.distance <= {far} order by near.distance, f.id
    """
    _look_far(connection)
    return _rows(connection, query, values, why)


def _look_far(connection: Connection) -> None:
    """Let the index examine CANDIDATES neighbours (its default is 40), and continue past those that a filter drops
    until there are enough (iterative scans of pgvector 0.8)."""
    query = "select set_config('hnsw.ef_search', :most, true), set_config('hnsw.iterative_scan', 'relaxed_order', true)"
    connection.execute(text(query), {"most": str(CANDIDATES)})


_WITHOUT = """
    (to_tsvector('simple', words_of_name(f.original_name))
        @@ websearch_to_tsquery('simple', words_of_name(:without))) is not true
    and (select x.words @@ websearch_to_tsquery('english', :without) from media_ai_analysis x
        where x.media_id = f.id) is not true
"""


def _where(filters: Filters, *conditions: str) -> tuple[str, dict[str, Any]]:
    values = {name: getattr(filters, name) for name in Filters.__slots__ if getattr(filters, name) is not None}
    told = [*conditions, *(_WITHOUT if name == "without" else f"f.{name} = :{name}" for name in values)]
    if filters.user_id is None:
        told.append("not f.private")
    return " and ".join(told), {name: getattr(value, "value", value) for name, value in values.items()}


def _rows(connection: Connection, query: str, values: dict[str, Any], why: str = "") -> list[Found]:
    return [Found(**row, why=why) for row in connection.execute(text(query), values).mappings()]
