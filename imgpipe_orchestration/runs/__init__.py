"""How a Dagster run gets a process: forked from one that has imported everything, instead of started from nothing.

Dagster's default launcher starts a fresh Python for each run, which spends three seconds importing before the first
op; and it cannot tell that a run's process died together with its code server, so that run stays "started" and blocks
its pipeline until a time limit ends it.

`forkserver` is the program that has imported everything; `warm` is how others ask it for processes. `launcher` forks
on the daemon's own machine (dagster.yaml). On several machines `celery_launcher` puts runs into queues
(deploy/dagster.yaml), and a `worker` on each machine takes them out and forks them in the same way. docs/adr/ has the
reasons and the figures.

`threads` is about what happens inside a run: an executor for steps that mostly wait.
"""
