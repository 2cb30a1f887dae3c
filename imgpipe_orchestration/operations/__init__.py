"""What is done to all pipelines at once: purge, erasure, export, review, retention, garbage collection, requeueing."""
