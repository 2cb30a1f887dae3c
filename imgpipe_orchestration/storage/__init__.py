"""Where things are kept: rows in PostgreSQL, objects in S3, documents in MongoDB.

`rows` opens the database, `objects` the object store, `documents` MongoDB. `claims` is the one mechanism of all queues
of items, `work` drives a batch of claims through a step, `ledger` is the journal of paid calls, `leases` keeps both
alive, `migrations` is the schema's history. `job_instances` is what people ask of a job and see of it (the only queue
of the auto-marker, whose items are documents), `heartbeats` when something regular last happened.
"""
