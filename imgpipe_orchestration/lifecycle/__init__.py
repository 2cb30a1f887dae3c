"""Deletion, erasure and export of whatever the features own.

A feature says what it owns in a `Kind` (its module `lifecycle`), and `imgpipe_orchestration.kinds` lists them. Trash
and restore, purge, the erasure of a person, the export, the sweep that looks for what is left, retention and garbage
collection all work on that list. None of them knows a feature by name.
"""
