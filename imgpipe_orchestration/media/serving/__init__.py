"""Serving images at their URLs.

`decision` chooses the variant for a request (pure), `negotiation` reads Accept, and `signing` gives access to private
images. `hot` reads and caches manifests and bytes, `changes` invalidates that cache, and `callers` counts requests by
page or program. `images` answers requests; `routes` registers it with FastAPI and makes `<picture>` elements.
"""
