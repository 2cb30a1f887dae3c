"""The statements of job instances. Times are the database's, because workers' clocks may differ."""

from __future__ import annotations

from sqlalchemy import text

CREATE = text("""
    insert into job_instances (job, trigger, customer_id, user_id, trace)
    values (:job, 'on_demand', :customer, :user, :trace) returning *
""")

ASKED_BY = text("update job_instances set user_id = :user where id = :id returning *")

CREATE_RUNNING = text("""
    insert into job_instances (job, trigger, customer_id, status, run_id, attempts, started_at, lease_until)
    select :job, :trigger, customer, 'running', :run, 1, now(), now() + make_interval(secs => :lease)
    from unnest(cast(:customers as text[])) as customer returning *
""")

# In a fixed order, so that two transactions that want the same locks cannot deadlock.
LOCK = text("""
    select pg_advisory_xact_lock(lock) from (
        select distinct hashtextextended(encode(key, 'hex'), 4) as lock from unnest(cast(:keys as bytea[])) as key
        order by lock
    ) as locks
""")

GET = text("select * from job_instances where id = :id")

OPEN = text("""
    select distinct on (customer_id) * from job_instances
    where job = :job and customer_id = any(:customers) and status in ('queued', 'running')
    order by customer_id, status = 'running' desc, created_at
""")

FAILED_OF_LATE = text("""
    select count(*) from job_instances
    where job = :job and status = 'failed' and finished_at >= now() - interval '1 day'
""")

FAILURES = text("""
    select * from (
        select distinct on (customer_id) * from job_instances
        where job = :job and status = 'failed' and finished_at >= now() - interval '1 day'
        order by customer_id, finished_at desc, id
    ) newest
    order by finished_at desc, id limit :limit
""")

GIVEN_UP = text("""
    select * from job_instances
    where job = :job and status = 'failed' and result = '{}' and finished_at >= now() - interval '1 day'
    order by finished_at, id limit :limit
""")

EXPLAIN = text("""
    update job_instances set result = cast(:result as jsonb)
    where id = any(:ids) and status = 'failed' and result = '{}'
""")

COUNTS = text("""
    select * from (
        select count(*) filter (where status = 'queued') as waiting,
            count(*) filter (where status = 'running') as running,
            cast(extract(epoch from now() - min(created_at) filter (where status = 'queued')) as float8)
                as oldest_seconds,
            count(*) filter (where created_at < now() - make_interval(secs => :stuck)) as stuck
        from job_instances where job = :job and status in ('queued', 'running')
    ) as open cross join (
        select count(*) filter (where status = 'completed') as done,
            count(*) filter (where status = 'failed') as failed,
            cast(avg(extract(epoch from finished_at - created_at)) filter (where status = 'completed') as float8)
                as average_seconds
        from job_instances
        where job = :job and status in ('completed', 'failed') and finished_at >= now() - interval '1 day'
    ) as ended
""")

QUEUED = text("""
    select * from job_instances where job = :job and status = 'queued' order by created_at, id limit :limit
""")

HELD_UP = text("""
    select job, error, count(*), cast(null as timestamptz) from job_instances
    where job = :job and status = 'queued' and error is not null group by job, error order by 3 desc, 2 limit :limit
""")

KEEP_WAITING = text("""
    update job_instances set error = :reason
    where job = :job and status = 'queued' and error is distinct from :reason
""")

START = text("""
    with found as (
        select id, started_at is not null as again from job_instances
        where id = any(:ids) and status = 'queued' for update
    ), taken as (
        update job_instances j set status = 'running', run_id = :run, attempts = attempts + 1, started_at = now(),
            lease_until = now() + make_interval(secs => :lease), error = null
        from found where j.id = found.id returning j.*, found.again
    )
    select * from taken order by created_at, id
""")

TAKE_OVER = text("""
    update job_instances set run_id = :new, attempts = attempts + 1 where run_id = :run and status = 'running'
""")

FINISH = text("""
    update job_instances j set status = over.status, result = cast(over.result as jsonb), error = over.error,
        finished_at = now(), lease_until = null
    from unnest(
        cast(:ids as uuid[]), cast(:runs as text[]), cast(:attempts as int[]),
        cast(:statuses as text[]), cast(:results as text[]), cast(:errors as text[])
    ) as over (id, run_id, attempts, status, result, error)
    where j.id = over.id and j.status = 'running' and j.run_id = over.run_id and j.attempts = over.attempts
    returning j.id
""")

RENEW = text("""
    update job_instances set lease_until = now() + make_interval(secs => :lease)
    where run_id = :run and status = 'running'
""")

_AGAIN = "attempts - 1 + :spent < :most"
_INTERRUPT = f"""
    update job_instances set
        status = case when {_AGAIN} then 'queued' else 'failed' end,
        finished_at = case when {_AGAIN} then null else now() end,
        attempts = attempts - 1 + :spent,
        error = 'The run ' || coalesce(run_id, '') || ' was interrupted.',
        lease_until = null
    where status = 'running' and
"""
INTERRUPT_RUN = text(_INTERRUPT + " run_id = :run")
INTERRUPT_STALE = text(_INTERRUPT + " job = :job and lease_until < now()")
