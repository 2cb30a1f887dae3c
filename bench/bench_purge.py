"""Purging many images, against bare batch deletes of as many objects."""

import resource
import time

from running import bar, options, servers, services
from sqlalchemy import text

from imgpipe_orchestration.lifecycle import trash
from imgpipe_orchestration.media.lifecycle import MEDIA
from imgpipe_orchestration.operations import purge
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import working_as
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.parts import stop

VARIANTS = 9
"""Objects of an image beside its original."""


def main() -> None:
    arguments = options(__doc__, images=10_000, users=100)
    with servers() as (postgres, s3), services(postgres, s3, "bench") as made:
        ids, keys = fill(made, arguments.images, arguments.users)
        bare = [f"bare/{key}" for key in keys]
        stop(s3)
        for key in (*keys, *bare):  # the bucket is a folder
            file = s3.folder / made.settings.media_bucket_name / key
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"x")
        s3.start()
        s3.wait_until_ready()
        measure(made, ids, bare)


def measure(services: Services, ids: list[int], bare: list[str]) -> None:
    """Purge images, then delete as many other objects without any rows."""
    images, began = len(ids), time.perf_counter()
    for start in range(0, images, purge.BATCH):
        with transaction(services.engine) as connection:
            trash.put(services, connection, MEDIA, ids[start : start + purge.BATCH], who="bench", why="bench", days=0)
    trashed = time.perf_counter()
    with working_as(services.claims, "bench"):
        purged, _ = purge.run(services, "bench")
    seconds = time.perf_counter() - trashed
    began_bare = time.perf_counter()
    services.media_bucket.delete_all(bare)
    bare_seconds = time.perf_counter() - began_bare
    assert purged == images, purged
    print(f"into the trash: {images / (trashed - began):,.0f} images/s")
    print(f"purge: {images / seconds:,.0f} images/s, {len(bare) / seconds:,.0f} objects/s")
    print(f"bare batch deletes: {images / bare_seconds:,.0f} images/s; purge over bare: {bare_seconds / seconds:.2f}")
    bar("purged_images_a_second", images / seconds, 200, at_least=True)
    print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")


def fill(services: Services, images: int, users: int) -> tuple[list[int], list[str]]:
    """Finished images; their ids and the keys of their objects."""
    with transaction(services.engine) as connection:
        ids = list(connection.scalars(_FILES, {"n": images, "users": users}))
        connection.execute(_VARIANTS, {"n": VARIANTS})
        keys = list(connection.scalars(text("select object_key from media_variants")))
        keys += connection.scalars(text("select bulk_path from media_files"))
    return ids, keys


_FILES = text("""
    insert into media_files (main_api_id, user_id, data_type, kind, image_path, upload_day, status, bulk_path)
    select n, n % :users, 'product', 'product', '/temp_images/products/7-product-1-' || n || '.jpg', current_date,
        'completed', 'bulk/2026-01-01/' || n || '.jpg' from generate_series(1, :n) n returning id
""")
_VARIANTS = text("""
    insert into media_variants (media_id, size, format, background, width, height, bytes, sha256, object_key, recipe)
    select f.id, 's' || n, 'avif', 'original', 1, 1, 1, 'x',
        'library/user_' || f.user_id || '/product/img/' || f.id || '-' || n, 'r'
    from media_files f, generate_series(1, :n) n
""")

if __name__ == "__main__":
    main()
