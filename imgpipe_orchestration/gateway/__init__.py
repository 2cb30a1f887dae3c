"""The HTTP surface: one FastAPI app that mounts the features' routes. It never imports Dagster.

What it wants done it writes as rows; sensors turn rows into runs. So accepted work survives an outage of Dagster.
"""
