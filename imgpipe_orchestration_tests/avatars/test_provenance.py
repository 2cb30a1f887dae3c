"""What a picture says about its making, in XMP."""

import io

from PIL import Image, PngImagePlugin

from imgpipe_orchestration.imaging.portraits.finishing import TRAINED, labelled, statement
from imgpipe_orchestration_tests.avatars.conftest import source_of
from imgpipe_orchestration_tests.imaging.corpus import encoded, picture

XMP = statement("gpt-image-2.5-flare", standin=False)


def test_a_bought_png_keeps_its_pixels_and_gains_the_statement() -> None:
    original = encoded(picture(), "PNG")
    data = labelled(original, XMP)
    assert source_of(original) is None
    assert source_of(data) == TRAINED
    with Image.open(io.BytesIO(data)) as image:
        assert image.convert("RGB").tobytes() == picture().tobytes()


def test_statements_that_were_there_give_way_and_everything_else_stays() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta xmlns:x='adobe:ns:meta/'>somebody else's</x:xmpmeta>")
    info.add(b"caBX", b"a C2PA manifest over the bytes as they were")
    info.add_text("Software", "a model")
    file = io.BytesIO()
    picture().save(file, "PNG", pnginfo=info, dpi=(72, 72))
    original = file.getvalue()
    data = labelled(original, XMP)
    assert source_of(data) == TRAINED
    assert b"somebody else's" not in data
    assert b"caBX" in original
    assert b"caBX" not in data
    with Image.open(io.BytesIO(original)) as before, Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.tobytes() == before.tobytes()
        assert (image.info["Software"], image.info["dpi"]) == ("a model", before.info["dpi"])


def test_a_standin_says_that_it_is_one() -> None:
    assert b"stand-in" in labelled(encoded(picture(), "PNG"), statement("x-standin", standin=True))
