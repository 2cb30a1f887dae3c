"""Images at their URLs, from the first second to the last.

`decision` says which variant a request gets and why (pure), `negotiation` reads Accept, `ranges` reads Range; `hot`
keeps manifests and bytes in memory and `changes` tells it what is no longer true; `images` puts it together, and
`routes` tells FastAPI of it.
"""
