"""The statements of the ledger. Times are the database's, because workers' clocks may differ."""

from sqlalchemy import text

FIND = text("""
    select c.*, c.lease_until < clock_timestamp() as expired, exists (select from budgets) as budgeted
    from (select) as one left join paid_calls c on c.key = :key
""")

_IS_PAUSED = """
    from spending_pauses where provider in (:provider, :provider || '/' || :model) and until > clock_timestamp()
"""

# Of a part of a thing, such as a person of a task, `item` begins with the thing's name.
_IS_DELETED = "from deletions d where d.what in (:item, substring(cast(:item as text) from '^(.*)/[^/]*$'))"
DELETED = text(f"select 1 {_IS_DELETED}")

# What comes of a call after its item was purged leaves what it cost: nobody would remove the rest any more.
_PURGED = f"exists (select {_IS_DELETED} and d.purging_at is not null)"
_ERASED = f"""exists (select {_IS_DELETED} and d.purging_at is not null and cast(d.user_id as text) = :tenant
        and exists (select from erasures e where e.user_id = d.user_id))"""

PAUSED = text(f"""
    select reason, extract(epoch from until - clock_timestamp()) as seconds {_IS_PAUSED} order by until desc limit 1
""")

# The conflict branch takes over an open call or one whose lease ended; of two that try, one wins. A caller that does
# not want to wait for a batch takes its call over as well.
START = text(f"""
    insert into paid_calls as c
        (key, provider, operation, model, input_hash, parameter_hash, state, owner, lease_until, reserved_usd,
         pipeline, tenant, bought_for)
    select
        :key, :provider, :operation, :model, :input_hash, :parameter_hash, 'started', :owner,
        clock_timestamp() + make_interval(secs => :lease), :reserved, :pipeline, :tenant,
        :bought_for
    where not exists (select {_IS_PAUSED}) and not exists (select {_IS_DELETED})
    on conflict (key) do update set
        state = 'started', owner = excluded.owner, lease_until = excluded.lease_until,
        reserved_usd = excluded.reserved_usd, pipeline = excluded.pipeline, tenant = excluded.tenant,
        bought_for = excluded.bought_for, attempts = c.attempts + 1, started_at = clock_timestamp()
    where c.state = 'open' or (c.state = 'started' and c.lease_until < clock_timestamp())
        or (c.state = 'started' and c.bought_for is not null and excluded.bought_for is null)
    returning attempts
""")

RENEW = text("""
    update paid_calls set lease_until = clock_timestamp() + make_interval(secs => :lease)
    where state = 'started' and owner = :owner
""")

_USE = f"""
    insert into paid_call_uses
        (key, outcome, pipeline, item, tenant, provider, operation, model, standin, input_tokens, output_tokens,
         cost_usd, seconds, error, saved_usd, half_price)
    values
        (:key, :outcome, :pipeline, :item, case when {_ERASED} then '' else :tenant end, :provider, :operation, :model,
         :standin, :input_tokens, :output_tokens, :cost, :seconds, case when not {_PURGED} then :error end, :saved,
         :half_price)
"""
RECORD = text(_USE)

_RECORD_AND_FORGET = f"""
    with used as ({_USE}),
    forgotten as (delete from paid_calls where key = :key and owner = :owner and state = 'started' and {_PURGED})
"""

COMMIT = text(f"""
    {_RECORD_AND_FORGET} update paid_calls set
        state = 'committed', value = cast(:value as jsonb), object_key = :object_key, answered_by = :answered_by,
        input_tokens = :input_tokens, output_tokens = :output_tokens, input_image_tokens = :input_image_tokens,
        cached_tokens = :cached_tokens, units = :units, cost_usd = :cost, seconds = :seconds,
        committed_at = clock_timestamp(), owner = null, lease_until = null, reserved_usd = 0, tenant = '', error = null
    where key = :key and state <> 'committed' and not {_PURGED}
    returning *
""")

# One that keeps `bought_for` was in a batch that did not answer it, and is not for another one. One with `answered_by`
# was refused by the model, for which it was paid.
REOPEN = text(f"""
    {_RECORD_AND_FORGET} update paid_calls set state = 'open', owner = null, lease_until = null, reserved_usd = 0,
        tenant = '', error = :error, bought_for = case when not :again then bought_for end,
        answered_by = case when :refused then model end
    where key = :key and owner = :owner and state = 'started' and not {_PURGED}
""")

FORGET = text("delete from paid_calls where key = :key and owner = :owner and state = 'started'")

PAUSE = text("""
    insert into spending_pauses (provider, until, reason)
    values (:provider, clock_timestamp() + make_interval(secs => :seconds), :reason)
    on conflict (provider) do update set until = excluded.until, reason = excluded.reason
""")

RESUME = text("delete from spending_pauses")

# The first use of an answer from a batch, by the item that it was bought for, does not count as another use.
FETCHED = text("update paid_calls set bought_for = null where key = :key and bought_for = :item returning key")

COUNTED = text("""
    select exists (select from paid_call_uses where key = :key and item = :item
        and (half_price or saved_usd is not null) and at > clock_timestamp() - interval '3 days')
""")

OF_BATCH = text("""
    select *, state = 'started' and owner = :token as ours from paid_calls
    where (owner = :token and state = 'started') or key = any(:keys) order by key for update
""")
