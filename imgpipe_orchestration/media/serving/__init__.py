"""Serving images at their URLs.

`decision` chooses the variant for a request (pure), `negotiation` reads Accept, `ranges` reads Range, and `signing`
gives access to private images. `manifests` reads an image's manifest, `hot` caches manifests and bytes, `changes`
invalidates that cache, and `callers` counts requests by page or program. `images` answers requests, `picture` makes
`<picture>` elements, and `routes` registers both with FastAPI.
"""
