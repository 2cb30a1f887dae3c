"""What the project knows about pixels: pure functions on images, without Dagster, database or network.

    reading/     a stranger's bytes -> the first frame, upright: `sniff` says what they are from the header alone and
                 within limits, `opening` decodes them no larger than needed, `streaming` what is plain, by libvips
    colour/      16 bit, float, palette, CMYK, any ICC profile and colour numbers -> 8 bits of sRGB; alpha that hides
                 nothing is dropped
    subject/     where the subject is: hints of the analysis, else faces, a plain ground, saliency; crops that keep it
    encoding/    AVIF, WebP, JPEG, PNG at the `quality` that reaches a target score; `chain`: in which order, for all
                 sizes of a format
    measuring/   colours, sharpness, exposure, placeholder
    portraits/   generated portraits: cut out of their grid, judged, made into files
    formats      names, media types and file extensions
    hashing      whether two pictures are the same, by their pixels and by their looks
    resize       smaller, never larger
    background   a logo without its background
    recipe       what to make of an image; plan: which size is cut from which, decided before a pixel is touched
    render       all of the above in the order that is fastest and best, with the reasons
    workshop     any of these in worker processes, so that a hostile file costs only itself

Callers use `sniff.sniff`, and in a `workshop.Workshop` `render.render`, `preview.look` and `finishing`. Operations take
a Pillow image and return a new one; they never alter their argument. Sizes are pixels, boxes are `geometry.Box`
(fractions of width and height, upright image) unless a docstring says otherwise.
"""
