"""How a Dagster run gets a process: forked from one that has imported everything, instead of started from nothing.

Dagster's default launcher starts a fresh Python for each run, which spends three seconds importing before the first
op; and it cannot tell that a run's process died together with its code server, so that run stays "started" and blocks
its pipeline until a time limit ends it. `launcher` (named in dagster.yaml) knows the process of each run and asks
`forkserver` for new ones. docs/adr/0001-runs-are-forked.md has the figures.
"""
