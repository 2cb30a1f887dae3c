"""Large photographs, as many different ones as tests and benches want."""

import io
import random

from PIL import Image, ImageOps

from imgpipe_orchestration.devstack.photos import PHOTOS, open_photo


def large(seed: int) -> bytes:
    """A JPEG of 3000 x 2000 pixels: six photographs side by side, chosen, cut and mirrored by `seed`.

    Different seeds give different bytes, so that nothing along the way is answered from a cache.
    """
    choice = random.Random(seed)
    sheet = Image.new("RGB", (3000, 2000))
    for index, name in enumerate(choice.sample(sorted(PHOTOS), 6)):
        image = open_photo(name)
        left, top = choice.randint(0, image.width // 8), choice.randint(0, image.height // 8)
        image = image.crop((left, top, image.width, image.height))
        if choice.random() < 0.5:
            image = ImageOps.mirror(image)
        sheet.paste(ImageOps.fit(image, (1000, 1000), Image.Resampling.BICUBIC), (index % 3 * 1000, index // 3 * 1000))
    file = io.BytesIO()
    sheet.save(file, "JPEG", quality=88)
    return file.getvalue()
