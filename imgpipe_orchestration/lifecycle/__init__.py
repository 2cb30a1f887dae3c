"""What features use to delete what they own: its description, the trash, the news for a CDN.

A feature says what it owns in a `Kind` (its module `lifecycle`). `operations.kinds` lists them, for purge, erasure,
export, the sweep that looks for what is left, retention and garbage collection. None of these knows a feature by name.
"""
