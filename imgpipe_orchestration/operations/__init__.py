"""What is done to all pipelines at once: retention, garbage collection, requeueing, checks at the start."""
