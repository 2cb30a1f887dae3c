"""Runs as processes: forked, watched, cancelled, killed; over a real Dagster instance in PostgreSQL."""
