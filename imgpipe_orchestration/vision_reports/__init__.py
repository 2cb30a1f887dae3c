"""Vision reports: unprocessed analyses in, HTML reports back, on the schedules of cron jobs kept over REST.

The story of one analysis. A cron job's tick becomes an execution (`executions`). A Dagster run asks the external API
for everything unprocessed of that organization (`listing`) and commits each analysis with a work item. Each is a step
of the run, side by side with the others; in it the run's `crew` takes it through its `steps`: its images (`inputs`) go
to an analysis backend, the batch is awaited, the report is uploaded. What has been reached is in the row before the
next thing is begun, so a later run goes on from there.

Two backends speak one interface (`backends`): a remote one over HTTP, and our own (`own_backend`), which the gateway
also serves to others at the same routes (`backend_routes`). Our own looks at each image with a vision model
(`batch_work`, `inspection`) and writes the report (`report`).
"""
