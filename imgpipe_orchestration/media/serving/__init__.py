"""Serving images at their URLs.

`decision` chooses the variant for a request (pure), and `signing` gives access to private images. `hot` reads and
caches manifests and bytes until they change, and `callers` counts requests by page or program. `images` answers
requests; `routes` registers it with FastAPI and makes `<picture>` elements.
"""
