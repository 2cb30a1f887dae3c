"""The tests mirror the package; beside it `contracts` (one suite a port, every implementation) and `end_to_end`."""
