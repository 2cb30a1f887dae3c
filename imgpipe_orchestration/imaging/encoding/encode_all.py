"""One picture to every size in every format, with as many encoders at work as there are threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial

from PIL import Image

from imgpipe_orchestration.imaging.encoding.chain import Chain, FixedChain, SearchingChain, searched_of
from imgpipe_orchestration.imaging.encoding.drawing import may_gain
from imgpipe_orchestration.imaging.encoding.encode import encode_lossless
from imgpipe_orchestration.imaging.encoding.picture import LazyImage, Picture
from imgpipe_orchestration.imaging.encoding.quality import Encoded, miss
from imgpipe_orchestration.imaging.formats import Format
from imgpipe_orchestration.imaging.plan import Cut, plan
from imgpipe_orchestration.imaging.recipe import Recipe
from imgpipe_orchestration.imaging.resize import shrink_onto
from imgpipe_orchestration.imaging.subject.focus import FocalBox

SUPPORT: tuple[Format, ...] = ("jpeg", "png", "webp", "avif")
"""From the best supported format to the least."""
_MISSED = 2.0
"""Points by which a lossy file may miss its target before a lossless one is tried in its place."""


@dataclass(frozen=True, slots=True)
class SizeFile:
    """One encoded size."""

    size: str
    format: Format
    width: int
    height: int
    data: bytes
    quality: int
    """In the encoder's own scale; 0 for a lossless file."""
    score: float | None


def encode_all(
    picture: Image.Image,
    focal: Callable[[], FocalBox],
    recipe: Recipe,
    *,
    exif: bytes,
    pool: ThreadPoolExecutor,
    threads: int,
    ground: tuple[int, ...] = (),
) -> list[SizeFile]:
    """Cut every size and encode it in every format.

    Args:
        focal: says where the subject is; called when a crop is cut, so that other sizes need not wait for it.
        threads: how many the pool has.
        ground: colour that crops show beyond the picture rather than cut the subject's core; empty where they stay
            inside.

    Returns:
        the files in the order of the recipe. They do not depend on the number of threads, because each format follows
        its own chain of tries.
    """
    formats = tuple("png" if kind == "jpeg" and picture.mode == "RGBA" else kind for kind in recipe.formats)
    cuts = plan(*picture.size, recipe, focal().core if ground else None)
    pictures = _pictures(picture, cuts, focal, ground)
    distinct = sorted({id(one): one for one in pictures.values()}.values(), key=lambda one: -one.pixels)
    chains = _chains(formats, distinct, recipe, exif)
    _run(list(chains.values()), pool, threads)
    if "webp" in chains:
        chains["webp"].done |= _without_loss(distinct, chains["webp"].done, exif, pool)
    by_name = {cut.size.name: cut for cut in cuts}
    result = []
    for size in recipe.sizes:
        cut, one = by_name[size.name], pictures[size.name]
        for kind in formats:
            file = chains[kind].done[id(one)]
            result.append(SizeFile(size.name, kind, cut.width, cut.height, file.data, file.quality, file.score))
    return result


def _pictures(
    picture: Image.Image, cuts: tuple[Cut, ...], focal: Callable[[], FocalBox], ground: tuple[int, ...]
) -> dict[str, Picture]:
    """The picture of each size, by the size's name; nothing is cut yet. Equal ones share one `Picture`."""
    images: dict[str | None, LazyImage] = {None: LazyImage(picture.size, lambda: picture)}
    distinct: dict[tuple[int, float], Picture] = {}
    named = {}
    for cut in cuts:
        source, size = images[cut.source], (cut.width, cut.height)
        same = source.size == size and not cut.beyond
        image = source if same else LazyImage(size, partial(_cut, source, cut, focal, ground))
        images[cut.size.name] = image
        scale = max(cut.width / picture.width, cut.height / picture.height)
        whole = cut.size.fit == "within"
        named[cut.size.name] = distinct.setdefault(
            (id(image), cut.size.target), Picture(image, whole=whole, scale=scale, target=cut.size.target)
        )
    return named


def _cut(source: LazyImage, cut: Cut, focal: Callable[[], FocalBox], ground: tuple[int, ...]) -> Image.Image:
    return shrink_onto(source.get(), cut.width, cut.height, cut.box(focal), ground)


def _without_loss(
    pictures: list[Picture], lossy: dict[int, Encoded], exif: bytes, pool: ThreadPoolExecutor
) -> dict[int, Encoded]:
    """Lossless WebP files, by `id` of the picture, where they are smaller than the lossy ones. They are tried where
    that may well be, and where the lossy one misses its target: it has no 4:4:4 for small things in strong colours."""

    def smaller(one: Picture) -> bytes | None:
        file = lossy[id(one)]
        most = len(file.data)
        is_missed = miss(file, one.target) < -_MISSED
        tried = one.has_few_colours and (is_missed or may_gain(one.image, most))
        data = encode_lossless(one.image, exif) if tried else None
        return data if data and len(data) < most else None

    files = zip(pictures, pool.map(smaller, pictures), strict=True)
    return {id(one): Encoded(data, 0, None) for one, data in files if data}


def _run(chains: list[Chain], pool: ThreadPoolExecutor, threads: int) -> None:
    """Run the chains' tasks, no more at once than there are threads: what becomes possible later may have to go first.

    What holds back the most work goes first, so that no thread runs out of tasks before the others do.
    """
    ready = [task for chain in chains for task in chain.released()]
    running: dict[Future[Encoded], tuple[Chain, Picture]] = {}
    while ready or running:
        ready.sort(key=lambda task: task[0].remaining(task[1], chains))
        while ready and len(running) < threads:
            chain, one, work = ready.pop()
            running[pool.submit(work)] = (chain, one)
        finished, _ = wait(running, return_when=FIRST_COMPLETED)
        done = [(*running.pop(future), future.result()) for future in finished]
        ready += [task for chain, one, file in done for task in chain.after(one, file)]
        ready += [task for chain in chains for task in chain.released()]


def _chains(formats: tuple[Format, ...], pictures: list[Picture], recipe: Recipe, exif: bytes) -> dict[Format, Chain]:
    """A chain for each format, led by the chains of better supported formats."""
    searched = searched_of(pictures)
    chains: dict[Format, Chain] = {}
    leaders: list[SearchingChain] = []
    for kind in sorted(formats, key=SUPPORT.index):
        if kind == "png" or not recipe.adaptive:
            chains[kind] = FixedChain(kind, pictures, recipe, exif)
        else:
            chain = SearchingChain(kind, pictures, searched, recipe, exif, leaders=tuple(leaders))
            leaders.append(chain)
            chains[kind] = chain
    return chains
