"""imgpipe: a company's image back office as one Dagster project.

Five features live beside each other and never import one another: `media`, `listings`, `auto_marker`,
`vision_reports` and `avatars`. They stand on `imaging` (pure functions on images), `storage` (rows, objects,
documents) and `partners` (one client per outside API). `gateway` is the HTTP surface, `devstack` the embedded servers.
"""
