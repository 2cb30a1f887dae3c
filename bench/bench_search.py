"""Images among many: similar ones, with recall and speed of the HNSW indexes against the exact answer, with and without
filters; and those of a file's name.

The embeddings are made up, but lie as real ones do: in clusters, on a few directions of 1536.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time

import numpy as np
from running import bar, database, running_postgres
from sqlalchemy import Connection, Engine, text

from imgpipe_orchestration.media import search
from imgpipe_orchestration.media.search import Filters
from imgpipe_orchestration.storage.postgres import as_long_as_it_takes

DIMENSIONS, DIRECTIONS, CLUSTERS, USERS = 1536, 64, 500, 200
LIMIT = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=40)
    arguments = parser.parse_args()
    with running_postgres() as server, database(server, "bench") as engine:
        fill(engine, arguments.images)
        measure(engine, arguments.images, arguments.questions)
        measure_names(engine, arguments.images, arguments.questions)


def fill(engine: Engine, count: int) -> None:
    random = np.random.default_rng(1)
    basis = random.normal(size=(DIRECTIONS, DIMENSIONS)).astype(np.float32)
    centres = random.normal(size=(CLUSTERS, DIRECTIONS)).astype(np.float32)
    began = time.perf_counter()
    with engine.begin() as connection, as_long_as_it_takes(connection):
        connection.execute(text("drop index media_ai_analysis_meaning; drop index media_ai_analysis_looks"))
        connection.execute(
            text("""
                insert into media_files
                    (main_api_id, user_id, data_type, kind, image_path, upload_day, status, original_name)
                select n, n % :users + 1, 'product', 'product', '/temp_images/products/' || n, current_date,
                    'completed', 'IMG_' || n || '.jpg'
                from generate_series(1, :count) n
            """),
            {"users": USERS, "count": count},
        )
        raw = connection.connection.dbapi_connection
        assert raw is not None
        copy = "copy media_ai_analysis (media_id, phash, embedding) from stdin"
        with raw.cursor() as cursor, cursor.copy(copy) as out:
            for start in range(1, count + 1, 1000):
                number = min(1000, count + 1 - start)
                latent = centres[random.integers(0, CLUSTERS, number)] + 0.5 * random.normal(size=(number, DIRECTIONS))
                vectors = latent.astype(np.float32) @ basis + random.normal(size=(number, DIMENSIONS))
                lines = io.StringIO()
                for at, vector in enumerate(vectors):
                    phash = int(random.integers(-(2**63), 2**63 - 1, dtype=np.int64))
                    lines.write(f"{start + at}\t{phash}\t[{','.join(f'{value:.3f}' for value in vector)}]\n")
                out.write(lines.getvalue())
    filled = time.perf_counter()
    with engine.begin() as connection, as_long_as_it_takes(connection):
        connection.execute(text("set local maintenance_work_mem = '1GB'"))
        for name, of in (("meaning", "embedding vector_cosine_ops"), ("looks", "(phash::bit(64)) bit_hamming_ops")):
            connection.execute(text(f"create index media_ai_analysis_{name} on media_ai_analysis using hnsw ({of})"))
        connection.execute(text("analyze media_ai_analysis; analyze media_files"))
    indexed = time.perf_counter()
    print(f"{count} images in {filled - began:.0f} s, their indexes in {indexed - filled:.0f} s", flush=True)


def measure(engine: Engine, count: int, questions: int) -> None:
    random = np.random.default_rng(2)
    kinds = {"all": Filters(), "one user of 200": Filters(user_id=7)}
    recalls: dict[str, list[float]] = {name: [] for name in kinds}
    seconds: dict[str, list[float]] = {name: [] for name in (*kinds, "exact")}
    for media_id in random.integers(1, count, questions):
        for name, filters in kinds.items():
            with engine.begin() as connection:
                spent, found = near(connection, int(media_id), filters)
            with engine.begin() as connection:
                connection.execute(text("set local enable_indexscan = off"))
                exactly, truth = near(connection, int(media_id), filters)
            recalls[name].append(len(found & truth) / len(truth) if truth else 1.0)
            seconds[name].append(spent)
            if name == "all":
                seconds["exact"].append(exactly)
    for name, values in seconds.items():
        print(f"{name}: median {1000 * statistics.median(values):.1f} ms, slowest {1000 * max(values):.1f} ms")
    bar("search_recall", statistics.mean(recalls["all"]), 0.95, at_least=True)
    bar("search_recall_of_one_user", statistics.mean(recalls["one user of 200"]), 0.95, at_least=True)
    bar("search_over_exact", statistics.median(seconds["all"]) / statistics.median(seconds["exact"]), 0.2)


def measure_names(engine: Engine, count: int, questions: int) -> None:
    random = np.random.default_rng(3)
    seconds: dict[str, list[float]] = {"a name of one": [], "a word of all names": []}
    for media_id in random.integers(1, count, questions):
        for kind, words in zip(seconds, (f"img_{media_id}.jpg", "jpg"), strict=True):
            with engine.begin() as connection:
                began = time.perf_counter()
                search._by_name(connection, words, Filters(), LIMIT)
                seconds[kind].append(time.perf_counter() - began)
    for name, values in seconds.items():
        print(f"{name}: median {1000 * statistics.median(values):.1f} ms, slowest {1000 * max(values):.1f} ms")
    bar("search_of_a_name_ms", 1000 * statistics.median(seconds["a name of one"]), 10)
    bar("search_of_every_name_ms", 1000 * statistics.median(seconds["a word of all names"]), 100)


def near(connection: Connection, media_id: int, filters: Filters) -> tuple[float, set[int]]:
    vector = connection.scalar(
        text("select cast(embedding as real[]) from media_ai_analysis where media_id = :id"), {"id": media_id}
    )
    began = time.perf_counter()
    found = search._by_meaning(connection, vector, filters, LIMIT)
    return time.perf_counter() - began, {one.id for one in found}


if __name__ == "__main__":
    main()
