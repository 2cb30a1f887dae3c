"""The whole stack as `imgpipe up` starts it, used from outside: HTTP, sensors, daemon, runs, the `dagster` CLI."""
