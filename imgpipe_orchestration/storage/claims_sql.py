"""The statements of `claims`, one per verb.

They rely on two indexes: `work_items_ready` has the items that may start now, by partition, lane and turn;
`work_items_due` has those waiting for the end of a pause or lease. No statement scans more than it takes.
"""

from sqlalchemy import TextClause, text

from imgpipe_orchestration.storage.queues import WITHDRAWN

# A queue grows from ten rows to a million and back between two runs of ANALYZE, so statistics mislead: these statements
# always want their index, in its order. Applies to the transaction only.
INDEXES_ONLY = text("""
    select set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
        set_config('enable_sort', 'off', true)
""")

# --- putting in -----------------------------------------------------------------------------------------------------

# `new` leaves out items that the queue has already, so that they do not use up turns of their tenant. Tenants are
# ordered so that two transactions which enqueue for the same ones cannot deadlock.
ENQUEUE = text("""
    with new as (
        select n.id, n.tenant, n.partition, n.trace, n.place
        from unnest(cast(:ids as bigint[]), cast(:tenants as text[]), cast(:partitions as text[]),
            cast(:traces as text[])) with ordinality as n (id, tenant, partition, trace, place)
        where not exists (select from work_items w where w.queue = :queue and w.item_id = n.id)
    ),
    turns as (
        insert into work_turns as t (queue, partition, tenant, flow, last_turn, added)
        select :queue, new.partition, new.tenant, 'new', coalesce(max(s.turn), 0) + count(*), count(*)
        from new left join work_served s on s.queue = :queue and s.partition = new.partition and s.lane = 0
        group by new.partition, new.tenant order by new.partition collate "C", new.tenant collate "C"
        on conflict (queue, partition, tenant, flow) do update set added = excluded.added,
            last_turn = greatest(t.last_turn, excluded.last_turn - excluded.added) + excluded.added
        returning partition, tenant, last_turn, added
    )
    insert into work_items (queue, item_id, tenant, partition, trace, state, turn)
    select :queue, new.id, new.tenant, new.partition, new.trace, 'waiting', turns.last_turn - turns.added
        + row_number() over (partition by new.partition, new.tenant order by new.place)
    from new join turns on turns.partition = new.partition and turns.tenant = new.tenant
    on conflict (queue, item_id) do nothing
""")

# The items get their turns when they become due.
ENQUEUE_LATER = text("""
    insert into work_items (queue, item_id, tenant, partition, trace, state, due_at, turn)
    select :queue, n.id, n.tenant, n.partition, n.trace, 'waiting', now() + make_interval(secs => :delay), 0
    from unnest(cast(:ids as bigint[]), cast(:tenants as text[]), cast(:partitions as text[]), cast(:traces as text[]))
        as n (id, tenant, partition, trace)
    on conflict (queue, item_id) do nothing
""")

# Restarted items get their turns when the next claim makes them ready.
RESTART = text("""
    with known as (
        select w.item_id, n.tenant, n.partition, n.trace from work_items w
        join unnest(cast(:ids as bigint[]), cast(:tenants as text[]), cast(:partitions as text[]),
            cast(:traces as text[])) as n (id, tenant, partition, trace) on n.id = w.item_id
        where w.queue = :queue and w.state in ('done', 'failed', 'ignored') order by w.item_id for update of w
    )
    update work_items w set state = 'waiting', due_at = now() + make_interval(secs => :delay), tenant = known.tenant,
        partition = known.partition, trace = known.trace, failures = 0, losses = 0, error = null, error_code = null,
        created_at = now(), updated_at = now()
    from known where w.queue = :queue and w.item_id = known.item_id
""")

# --- looking --------------------------------------------------------------------------------------------------------

_READY = "w.queue = :queue and w.state = 'waiting' and w.due_at is null"
_TIMED = "w.queue = :queue and w.due_at is not null"

# A loose index scan, which PostgreSQL lacks: the recursion jumps from one partition to the next, in both indexes at
# once. The planner would turn `exists` into a hash of everything that waits, but not a subselect with a limit.
DUE_PARTITIONS = text(f"""
    with recursive known as (
        select least(r, t) as partition, coalesce(r <= t, r is not null) as ready from (select
            (select w.partition from work_items w where {_READY} order by w.partition limit 1) as r,
            (select w.partition from work_items w where {_TIMED} order by w.partition limit 1) as t) as first
        union all
        select least(r, t), coalesce(r <= t, r is not null) from known cross join lateral (select
            (select w.partition from work_items w where {_READY} and w.partition > known.partition
                order by w.partition limit 1) as r,
            (select w.partition from work_items w where {_TIMED} and w.partition > known.partition
                order by w.partition limit 1) as t) as next
        where known.partition is not null
    )
    select partition from known where partition is not null and (ready or coalesce(
        (select true from work_items w where {_TIMED} and w.partition = known.partition and w.due_at <= now() limit 1),
        false))
    limit :limit
""")

OWNED = text("""
    select queue, item_id, owner, attempt, failures, losses, tenant, partition, trace, turn from work_items
    where owner = :owner and queue = :queue and state = 'claimed' order by turn, item_id
""")

FIND = text("select state, error_code, trace from work_items where queue = :queue and item_id = :item_id")

# --- taking ---------------------------------------------------------------------------------------------------------

# An item that paused or was delayed gets a new turn, counted apart from its tenant's new items (`flow`), so that it is
# neither ahead of everybody nor behind the tenant's backlog. One that was claimed, and lost its worker, keeps its turn.
MAKE_READY = text("""
    with due as (
        select item_id, tenant, state = 'claimed' as lost, (failures > 0)::int as lane,
            case when failures > 0 then 'again' else 'back' end as flow, owner, attempt, claimed_at, due_at
        from work_items
        where queue = :queue and partition = :partition and due_at is not null and due_at <= now()
        order by due_at limit :limit for update skip locked
    ),
    turns as (
        insert into work_turns as t (queue, partition, tenant, flow, last_turn, added)
        select :queue, :partition, due.tenant, due.flow, coalesce(max(s.turn), 0) + count(*), count(*)
        from due left join work_served s on s.queue = :queue and s.partition = :partition and s.lane = due.lane
        where not due.lost group by due.tenant, due.flow order by due.tenant collate "C", due.flow collate "C"
        on conflict (queue, partition, tenant, flow) do update set added = excluded.added,
            last_turn = greatest(t.last_turn, excluded.last_turn - excluded.added) + excluded.added
        returning tenant, flow, last_turn, added
    ),
    placed as (
        select due.item_id, due.lost, turns.last_turn - turns.added
            + row_number() over (partition by due.lost, due.tenant, due.flow order by due.due_at, due.item_id) as turn
        from due left join turns on not due.lost and turns.tenant = due.tenant and turns.flow = due.flow
    ),
    moved as (
        update work_items w set state = 'waiting', owner = null, due_at = null, updated_at = now(),
            losses = w.losses + placed.lost::int, turn = coalesce(placed.turn, w.turn)
        from placed where w.queue = :queue and w.item_id = placed.item_id
    )
    insert into work_attempts (queue, item_id, attempt, owner, started_at, outcome, error, error_code)
    select :queue, item_id, attempt, owner, claimed_at, 'lost', :error, :code from due where lost
""")

_TAKEN = """
    update work_items w set state = 'claimed', owner = :owner, attempt = w.attempt + 1, claimed_at = now(),
        updated_at = now(), due_at = now() + make_interval(secs => :lease)
    from due where w.queue = :queue and w.item_id = due.item_id
    returning w.queue, w.item_id, w.owner, w.attempt, w.failures, w.losses, w.tenant, w.partition, w.trace, w.turn
"""

TAKE = text(f"""
    with due as (
        select item_id from work_items
        where queue = :queue and partition = :partition and lane = :lane and state = 'waiting' and due_at is null
        order by turn limit :limit for update skip locked
    )
    {_TAKEN}
""")

# As TAKE, without the items of some tenants. It looks at the next few hundred turns only: a tenant whose turn comes has
# one among them, however many items of others wait.
TAKE_OF_OTHERS = text(f"""
    with near as materialized (
        select item_id, tenant, turn from work_items
        where queue = :queue and partition = :partition and lane = :lane and state = 'waiting' and due_at is null
        order by turn limit 300
    ),
    due as (
        select w.item_id from work_items w
        where w.queue = :queue and w.item_id = any(array(
            select item_id from near where tenant <> all(cast(:but as text[])) order by turn limit :limit
        )) and w.state || '' = 'waiting' and w.due_at is null for update skip locked
    )
    {_TAKEN}
""")

# Those that lost the most workers first, and the fewer of them at a time the more workers they lost. One that is given
# up if it loses another is alone, however large the batches are.
TAKE_SUSPECTS = text(f"""
    with head as (
        select lane from work_items
        where queue = :queue and partition = :partition and lane > 1 and state = 'waiting' and due_at is null
        order by lane desc limit 1
    ),
    due as (
        select item_id from work_items
        where queue = :queue and partition = :partition and lane = (select lane from head)
            and state = 'waiting' and due_at is null
        order by turn limit (select case when lane > :most then 1
            else greatest(1, (:limit / power(:shrink, lane - 2))::int) end from head)
        for update skip locked
    )
    {_TAKEN}
""")

# Items by ids and state. The concatenation keeps the planner from using a partial index on the state: with old
# statistics it would read all items that wait, or all that failed.
_THESE_IN_STATE = "queue = :queue and item_id = any(cast(:ids as bigint[])) and state || ''"

# Somebody asks for these items, so turns do not count.
TAKE_THESE = text(f"""
    with due as (
        select item_id from work_items where {_THESE_IN_STATE} = 'waiting' order by item_id for update skip locked
    )
    {_TAKEN}
""")

TAKE_OVER = text("""
    update work_items set owner = :new, attempt = attempt + 1, updated_at = now(),
        due_at = now() + make_interval(secs => :lease)
    where owner = :owner and state = 'claimed'
""")

SERVE = text("""
    insert into work_served as s (queue, partition, lane, turn) values (:queue, :partition, :lane, :turn)
    on conflict (queue, partition, lane) do update set turn = greatest(s.turn, excluded.turn)
""")

# Rows that a step is writing at this moment are skipped: nobody can take them meanwhile, and waiting for them would
# delay the other leases.
HEARTBEAT = text("""
    with mine as (
        select queue, item_id from work_items where owner = :owner and state = 'claimed' for update skip locked)
    update work_items w set due_at = clock_timestamp() + make_interval(secs => :lease)
    from mine where w.queue = mine.queue and w.item_id = mine.item_id
""")

# --- giving back ----------------------------------------------------------------------------------------------------

# `owner` implies the state claimed, by a constraint. Naming the state here would offer the planner the index on owners,
# by which each write would read all items of its owner.
_HELD = "queue = :queue and item_id = :item_id and owner = :owner and attempt = :attempt"

CHECK = text(f"select failures from work_items where {_HELD} for update")

PROGRESS = text(f"""
    update work_items set failures = 0, losses = 0, updated_at = clock_timestamp(),
        due_at = case when due_at < clock_timestamp() + make_interval(secs => :lease / 2)
            then clock_timestamp() + make_interval(secs => :lease) else due_at end
    where {_HELD}
""")

# Also writes the attempt's history, to save a round trip.
SETTLE = text(f"""
    with settled as (
        update work_items set state = :state, error = :error, error_code = :code, failures = failures + :spent,
            owner = null, updated_at = clock_timestamp(),
            due_at = case when :state = 'waiting' then clock_timestamp() + make_interval(secs => :pause) end
        where {_HELD} returning claimed_at
    )
    insert into work_attempts (queue, item_id, attempt, owner, started_at, ended_at, outcome, error, error_code)
    select :queue, :item_id, :attempt, :owner, claimed_at, clock_timestamp(), :outcome, :error, :code from settled
""")

RELEASE = text("""
    with given as (
        update work_items set state = 'waiting', owner = null, due_at = null, updated_at = now(),
            losses = losses + (:lost)::int
        where owner = :owner and state = 'claimed' returning queue, item_id, attempt, claimed_at
    ),
    recorded as (
        insert into work_attempts (queue, item_id, attempt, owner, started_at, outcome, error, error_code)
        select queue, item_id, attempt, :owner, claimed_at, 'lost', :error, :code from given where :lost
    )
    select count(*) from given
""")


def _change(states: str, changes: str) -> TextClause:
    """Change those of some items that are in one of the states; returns their ids."""
    return text(f"""
        with chosen as (
            select item_id from work_items where {_THESE_IN_STATE} {states} order by item_id for update
        )
        update work_items w set {changes}, updated_at = now()
        from chosen where w.queue = :queue and w.item_id = chosen.item_id returning w.item_id
    """)


# Due now instead of ready, so that many requeued items get their turns like others.
REQUEUE = _change(
    f"= any(cast(:states as text[])) and error_code is distinct from '{WITHDRAWN}'",
    "state = 'waiting', failures = 0, losses = 0, error = null, error_code = null, due_at = now(), created_at = now()",
)

# From the far end of the index on `due_at`, where what was hastened by an earlier batch is not read again.
PUT_OFF = text("""
    select item_id from work_items where queue = :queue and state = 'waiting' and due_at > now()
    order by partition desc, due_at desc limit :limit
""")

# `coalesce` keeps the planner from the index on `due_at`, as the concatenation does from those on the state.
HASTEN = _change("= 'waiting' and coalesce(due_at > now(), false)", "due_at = now()")

IGNORE = _change("= 'failed'", "state = 'ignored'")

UNIGNORE = _change(f"= 'ignored' and error_code is distinct from '{WITHDRAWN}'", "state = 'failed'")

WITHDRAW = _change(
    "in ('waiting', 'claimed', case when :failed then 'failed' else 'claimed' end)",
    f"state = 'ignored', error = :reason, error_code = '{WITHDRAWN}', owner = null, due_at = null",
)
