"""Rows in PostgreSQL, objects in S3, documents in MongoDB.

`rows`, `objects` and `documents` are the clients; `migrations` holds the schema. `claims` is the queue mechanism,
`work` runs a batch of claims through a step, and `leases` renews the leases of claims and of paid calls.
`job_instances` are runs that people request and watch. `heartbeats` records when periodic work last happened.
"""
