"""The tests mirror the package; beside it `end_to_end` (all of a running stack), `recovery`, `scale` and `security`."""
