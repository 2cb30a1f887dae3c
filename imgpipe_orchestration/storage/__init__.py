"""Where things are kept: rows in PostgreSQL, objects in S3, documents in MongoDB.

`rows` opens the database, `claims` is the one queue mechanism of all five features, `work` drives a batch of claims
through a step, `ledger` is the journal of paid calls, `leases` keeps both alive, `migrations` is the schema's history.
`documents` opens MongoDB; `job_instances` is what people ask of a job and see of it, `heartbeats` when something
regular last happened.
"""
