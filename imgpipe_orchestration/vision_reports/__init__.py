"""Vision reports: fetches unprocessed analyses from an external API and delivers an HTML report for each, on the
schedules of cron jobs that are managed over REST.

The story of one analysis. A cron job's tick becomes an execution (`executions`). A Dagster run asks the external API
for all unprocessed analyses of that organization (`listing`) and commits each with a work item. A run (`runs`) takes
them through their `steps` side by side: the images go to an analysis backend, the batch is awaited, the
report is uploaded. Progress is committed before each next action, so a later run can continue from there.

Analysis backends are reached over HTTP. One is our own, which the gateway serves (`backend_routes`): a
run of `vision_batches` shows each image to a vision model (`batch_work`, `inspection`) and writes the report
(`report`).
"""
