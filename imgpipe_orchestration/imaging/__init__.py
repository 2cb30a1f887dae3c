"""The image engine: pure functions on images, without Dagster, database or network.

    reading/     untrusted bytes -> the first frame, upright: `sniff` identifies them by the header and checks limits,
                 `opening` decodes them no larger than needed
    colour       16 bit, float, palette, CMYK, any ICC profile or code points -> 8-bit sRGB; drops opaque alpha
    subject/     where the subject is (hints of the analysis, else faces, a plain background, saliency)
    encoding/    AVIF, WebP, JPEG and PNG at the `quality` that reaches a target score, for all sizes of a format
    portraits/   generated portraits: cut out of their grid, judged, made into files
    measuring    colours, sharpness, exposure, placeholder, and hashes of pixels and of looks
    resize       smaller, never larger
    background   removing the background of a logo
    formats      names, media types and file extensions
    recipe       what to make of an image
    plan         how large each size comes out, and what is cropped for it
    render       all of the above in the fastest order
    workshop     any of these in worker processes, so that a hostile file costs only itself

Callers use `sniff.sniff`, and in a `workshop.Workshop` `render.render`, `measuring.look` and `finishing`. Operations
take a Pillow image and return a new one; they never alter their argument. Sizes are pixels, boxes are `geometry.Box`
(fractions of width and height, upright image) unless a docstring says otherwise.
"""
