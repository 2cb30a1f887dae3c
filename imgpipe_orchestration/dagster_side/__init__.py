"""What touches Dagster beside the features.

`assets` and `sensors` have what the features share; `alerts` tell people that a run or a check failed. The rest is how
a run gets a process: it is forked from a process that has already imported everything.

Dagster's default launcher starts a new Python for each run, which spends three seconds importing before the first op.
It also does not notice when a run's process dies together with its code server, so that the run stays "started" and
blocks its pipeline until a time limit ends it.

`forkserver` is the program that has imported everything; `launcher` asks it for processes, on the daemon's own machine
(dagster.yaml). On several machines `celery_launcher` puts runs into queues (deploy/dagster.yaml), and a
`worker` on each machine takes them out and forks them in the same way. docs/adr/ has the reasons and the figures.
"""
