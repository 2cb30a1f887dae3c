"""What the project knows about pixels: pure functions on images, without Dagster, database or network.

    sniff        what these bytes are, from their header alone, within limits: nothing is decoded
    opening      bytes -> first frame, decoded no larger than needed; streaming: what is plain, by libvips
    depth        16 bit, float, palette, 1 bit -> 8 bits a channel
    colour       CMYK, any ICC profile and colour numbers (cicp) -> sRGB
    orientation  the EXIF orientation turned into pixels
    alpha        an alpha channel that hides nothing is dropped
    resize       smaller, never larger
    focus        where the subject is: hints of the analysis, else faces, a plain ground, saliency
    crop         the box of a given shape that keeps the subject
    background   a logo without its background
    plan         which size is cut from which, decided before a pixel is touched
    quality      the encoder quality that reaches a target score; chain: in which order, for all sizes of a format
    encode       AVIF, WebP, JPEG, PNG; the same pixels give the same bytes
    render       all of the above in the order that is fastest and best, with the reasons
    measure      colours, sharpness, exposure, hashes, placeholder
    workshop     any of these in worker processes, so that a hostile file costs only itself

Callers use `sniff.sniff`, `render.render`, `measure.measure` and `workshop.Workshop`. Operations take a Pillow image
and return a new one; they never alter their argument. Sizes are pixels, boxes are `geometry.Box` (fractions of width
and height, upright image) unless a docstring says otherwise.
"""
