"""Images at their URLs, from the first second to the last.

`decision` says which variant a request gets and why (pure), `negotiation` reads Accept, `ranges` reads Range, `signing`
opens private images. `manifests` reads what there is of an image, `hot` keeps that and the bytes in memory, `changes`
tells it what is no longer true; `callers` counts who asks. `images` puts it together, `picture` writes it as an element
for a page, and `routes` tells FastAPI of both.
"""
