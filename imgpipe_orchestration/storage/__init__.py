"""Storage: rows in PostgreSQL, objects in S3, documents in MongoDB.

`rows` opens the database, `objects` the object store, `documents` MongoDB; `migrations` is the schema's history.
`claims` is the mechanism of all queues of items, `work` runs a batch of claims through a step, `ledger` is the journal
of paid calls, and `leases` keeps the leases of both alive. `job_instances` are runs of a job that people ask for and
watch (the only queue of the auto-marker, whose items are documents). `heartbeats` says when something regular last
happened.
"""
