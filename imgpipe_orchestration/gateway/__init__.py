"""The HTTP surface: one FastAPI app that mounts the features' routes. It never imports Dagster.

It writes accepted work as rows, and sensors turn rows into runs, so accepted work survives an outage of Dagster.
"""
