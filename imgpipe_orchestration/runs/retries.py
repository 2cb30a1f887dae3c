"""How often the steps of a run are tried again by Dagster: only where no queue of ours does it."""

import dagster as dg

ONCE_A_DAY = dg.RetryPolicy(max_retries=3, delay=60, backoff=dg.Backoff.EXPONENTIAL)
"""For what runs once a day: a store that is away at that moment need not cost a day, or wake anybody. Seven minutes in
all, with 60, 120 and 240 seconds between the tries."""
