-- The schema of imgpipe 0.1. Later revisions change it.

create extension if not exists vector;

create function touch_updated_at() returns trigger language plpgsql as $$
    begin new.updated_at = now(); return new; end
$$;

-- One statement in fifty adds up, which keeps a few hundred rows at most.
create function work_items_counted() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        insert into work_counts select queue, state, count(*) from added group by queue, state;
    elsif tg_op = 'DELETE' then
        insert into work_counts select queue, state, -count(*) from removed group by queue, state;
    elsif tg_op = 'UPDATE' then
        insert into work_counts
        select queue, state, sum(n) from (
            select queue, state, count(*) as n from added group by queue, state
            union all
            select queue, state, -count(*) from removed group by queue, state
        ) as changes group by queue, state having sum(n) <> 0;
    else
        delete from work_counts;
    end if;
    -- One statement in fifty tidies up, which keeps a few hundred rows at most.
    if random() < 0.02 then
        perform work_counts_add_up();
    end if;
    return null;
end
$$;

-- PostgreSQL drops equal notifications of one transaction, so thirty new variants make one message. The argument is the
-- column that holds the media id.
create function tell_media_changed() returns trigger language plpgsql as $$
begin
    perform pg_notify('media_changed', coalesce(to_jsonb(new), to_jsonb(old)) ->> tg_argv[0]);
    return null;
end
$$;

-- Oklab (Ottosson 2020): distances in it are about what people see.
create function oklab_of(hex text) returns vector language plpgsql immutable strict parallel safe as $$
declare
    c float8[] := '{}';
    v float8;
    l float8; m float8; s float8;
begin
    if hex !~ '^#[0-9a-fA-F]{6}$' then return null; end if;
    for i in 0..2 loop
        v := ('x' || substr(hex, 2 + 2 * i, 2))::bit(8)::int / 255.0;
        c := c || case when v <= 0.04045 then v / 12.92 else power((v + 0.055) / 1.055, 2.4) end;
    end loop;
    l := cbrt(0.4122214708 * c[1] + 0.5363325363 * c[2] + 0.0514459929 * c[3]);
    m := cbrt(0.2119034982 * c[1] + 0.6806995451 * c[2] + 0.1073969566 * c[3]);
    s := cbrt(0.0883024619 * c[1] + 0.2817188376 * c[2] + 0.6299787005 * c[3]);
    return array[
        0.2104542553 * l + 0.7936177850 * m - 0.0040720468 * s,
        1.9779984951 * l - 2.4285922050 * m + 0.4505937099 * s,
        0.0259040371 * l + 0.7827717662 * m - 0.8086757660 * s]::real[]::vector;
end
$$;

create function media_colours_follow() returns trigger language plpgsql as $$
begin
    delete from media_colours where media_id = new.media_id;
    perform media_colours_of(new.media_id, new.dominant_colors);
    return null;
end
$$;

create function count_paid_call_uses() returns trigger language plpgsql as $$
begin
    insert into spending_days as d (
        day, pipeline, provider, model, operation, bought, reused, failed, lost, standin, unknown_cost,
        input_tokens, output_tokens, cost_usd, seconds, saved_usd)
    select
        (at at time zone 'UTC')::date, pipeline, provider, model, operation,
        sum((outcome = 'bought')::int),
        sum((outcome = 'reused')::int),
        sum((outcome = 'failed' or outcome = 'bought' and error is not null)::int),
        sum((outcome = 'lost')::int),
        sum((outcome = 'bought' and standin)::int),
        sum((outcome = 'bought' and cost_usd is null)::int),
        sum(input_tokens), sum(output_tokens), sum(coalesce(cost_usd, 0)),
        sum(case when outcome = 'bought' then seconds else 0 end), sum(coalesce(saved_usd, 0))
    from added group by 1, 2, 3, 4, 5 order by 1, 2, 3, 4, 5
    on conflict (day, pipeline, provider, model, operation) do update set
        bought = d.bought + excluded.bought, reused = d.reused + excluded.reused,
        failed = d.failed + excluded.failed, lost = d.lost + excluded.lost,
        standin = d.standin + excluded.standin, unknown_cost = d.unknown_cost + excluded.unknown_cost,
        input_tokens = d.input_tokens + excluded.input_tokens,
        output_tokens = d.output_tokens + excluded.output_tokens,
        cost_usd = d.cost_usd + excluded.cost_usd, seconds = d.seconds + excluded.seconds,
        saved_usd = d.saved_usd + excluded.saved_usd;
    insert into spending_tenants as t (day, tenant, bought, reused, cost_usd, saved_usd)
    select
        (at at time zone 'UTC')::date, tenant, sum((outcome = 'bought')::int), sum((outcome = 'reused')::int),
        sum(coalesce(cost_usd, 0)), sum(coalesce(saved_usd, 0))
    from added group by 1, 2 order by 1, 2
    on conflict (tenant, day) do update set
        bought = t.bought + excluded.bought, reused = t.reused + excluded.reused,
        cost_usd = t.cost_usd + excluded.cost_usd, saved_usd = t.saved_usd + excluded.saved_usd;
    return null;
end
$$;

-- The parser of the text search would take `bowl_1.jpg` for a host, and `-1` for a number. A hyphen that begins a word
-- stays, because in a question it means "without".
create function words_of_name(name text) returns text language sql immutable strict parallel safe
    return regexp_replace(name, '(\S)[-._]+', '\1 ', 'g');

create function audit_refuses() returns trigger language plpgsql as $$
    begin raise exception 'The audit takes no %: its rows stay as they were written.', tg_op; end
$$;

-- The partition of a month, made when it is first needed: a stack may sleep over the turn of a month.
create function audit_month(moment timestamp with time zone) returns void language plpgsql as $$
declare
    begins date := date_trunc('month', moment at time zone 'UTC');
    name text := 'audit_' || to_char(begins, 'YYYY_MM');
begin
    if to_regclass(name) is null then
        perform pg_advisory_xact_lock(hashtextextended('audit_month', 0));
        if to_regclass(name) is null then
            execute format(
                'create table %I partition of audit for values from (%L) to (%L)', name,
                begins::timestamp at time zone 'UTC', (begins + interval '1 month') at time zone 'UTC');
            execute format(
                'create trigger %I before truncate on %I for each statement '
                'execute function audit_refuses()', name || '_is_not_emptied', name);
        end if;
    end if;
end
$$;

create function tell_deleted() returns trigger language plpgsql as $$
begin
    perform pg_notify('media_changed', coalesce(new.item, old.item)::text);
    return null;
end
$$;

create function outdate_next_embedding() returns trigger language plpgsql as $$
begin
    if new.embedding is distinct from old.embedding then new.embedding_next := null; end if;
    return new;
end
$$;

-- A trigger, so that nothing which writes an analysis has to know. `corrected` holds for each column the value, who
-- gave it
-- and when, and what the model found, which comes back when the correction is taken away.
create function keep_corrections() returns trigger language plpgsql as $$
declare
    name text; given jsonb; found jsonb; given_back jsonb := '{}'; kept jsonb := '{}';
    row_ jsonb := to_jsonb(new);
begin
    for name, given in select * from jsonb_each(old.corrected) loop
        if not new.corrected ? name then
            given_back := given_back || jsonb_build_object(name, given -> 'found');
        end if;
    end loop;
    for name, given in select * from jsonb_each(new.corrected) loop
        found := row_ -> name;
        if old.corrected ? name and found = old.corrected -> name -> 'value' then
            found := old.corrected -> name -> 'found';
        end if;
        kept := kept || jsonb_build_object(name, given || jsonb_build_object('found', found));
        given_back := given_back || jsonb_build_object(name, given -> 'value');
    end loop;
    new.corrected := kept;
    return jsonb_populate_record(new, given_back);
end
$$;

-- Every queue's items. `due_at` is a waiting item's pause or a claimed item's lease; null is ready. Ready ones have
-- lanes:
-- new items, items that failed before, items whose worker died. An item has an owner exactly while it is claimed, so
-- (queue, item, owner, attempt) is the whole question of a fence. The key begins with the item: with the queue first, a
-- planner whose statistics are old takes "all of the queue" for one row, and reads a million. Each item is written five
-- times or so and each write leaves a dead row, so autovacuum runs more often than by default.
create table work_items (
    queue text not null,
    item_id bigint not null,
    tenant text not null default '',
    partition text not null default '',
    state text not null check (state in ('waiting', 'claimed', 'done', 'failed', 'ignored')),
    due_at timestamptz,
    turn bigint not null,
    owner text,
    attempt integer not null default 0,
    failures integer not null default 0,
    losses integer not null default 0,
    error text,
    error_code text,
    created_at timestamptz not null default now(),
    claimed_at timestamptz,
    updated_at timestamptz not null default now(),
    lane integer generated always as (
        case when losses > 0 then 1 + losses when failures > 0 then 1 else 0 end
    ) stored not null,
    trace text not null default '',
    primary key (item_id, queue),
    constraint work_items_owner_while_claimed check ((state = 'claimed') = (owner is not null))
);
create index work_items_owner on work_items (owner) where state = 'claimed';
create index work_items_open on work_items (queue, created_at) where state in ('waiting', 'claimed');
create index work_items_failed on work_items (updated_at, queue, item_id) where state = 'failed';
create index work_items_failed_in on work_items (queue, updated_at, item_id) where state = 'failed';
create index work_items_finished on work_items (queue, updated_at) where state in ('done', 'ignored');
create index work_items_ready on work_items (queue, partition, lane, turn)
    where state = 'waiting' and due_at is null;
create index work_items_due on work_items (queue, partition, due_at) where due_at is not null;
create index work_items_ignored on work_items (updated_at, queue, item_id)
    where (state = 'ignored') and (error_code is distinct from 'withdrawn');
create index work_items_ignored_in on work_items (queue, updated_at, item_id)
    where (state = 'ignored') and (error_code is distinct from 'withdrawn');
alter table work_items set (
    fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0);
create trigger counted_insert after insert on work_items referencing new table as added
    for each statement execute function work_items_counted();
create trigger counted_update after update on work_items referencing old table as removed new table as added
    for each statement execute function work_items_counted();
create trigger counted_delete after delete on work_items referencing old table as removed
    for each statement execute function work_items_counted();
create trigger counted_truncate after truncate on work_items
    for each statement execute function work_items_counted();

create table work_attempts (
    id bigint generated always as identity primary key,
    queue text not null,
    item_id bigint not null,
    attempt integer not null,
    owner text not null,
    started_at timestamptz,
    ended_at timestamptz not null default now(),
    outcome text not null,
    error text,
    error_code text
);
create index work_attempts_item on work_attempts (queue, item_id);
create index work_attempts_ended on work_attempts (ended_at);

-- Open ones are items of the queue of their job under their `number`, where their leases are.
create table job_instances (
    id uuid default gen_random_uuid() primary key,
    job text not null,
    trigger text not null check (trigger in ('scheduled', 'on_demand')),
    customer_id text not null default '',
    user_id text not null default '',
    status text not null default 'queued' check (status in ('queued', 'completed', 'failed')),
    result jsonb not null default '{}',
    error text,
    run_id text,
    created_at timestamptz not null default now(),
    started_at timestamptz,
    finished_at timestamptz,
    number bigint generated always as identity unique
);
create index job_instances_recent on job_instances (job, customer_id, created_at desc);
create unique index job_instances_one_open on job_instances (job, customer_id) where status = 'queued';
create index job_instances_latest on job_instances (job, created_at desc);
create index job_instances_ended on job_instances (finished_at) where status in ('completed', 'failed');

create table paid_calls (
    key text primary key,
    provider text not null,
    operation text not null,
    model text not null,
    input_hash text not null,
    parameter_hash text not null,
    state text not null check (state in ('open', 'started', 'committed')),
    owner text,
    lease_until timestamptz,
    reserved_usd numeric(12,6) not null default 0,
    attempts integer not null default 1,
    value jsonb,
    object_key text,
    answered_by text,
    input_tokens bigint not null default 0,
    output_tokens bigint not null default 0,
    input_image_tokens bigint not null default 0,
    cached_tokens bigint not null default 0,
    units numeric(12,3) not null default 0,
    cost_usd numeric(12,6),
    seconds float8,
    error text,
    created_at timestamptz not null default clock_timestamp(),
    started_at timestamptz not null default clock_timestamp(),
    committed_at timestamptz,
    pipeline text not null default '',
    tenant text not null default '',
    bought_for text
);
create index paid_calls_started on paid_calls (lease_until) where state = 'started';
create index paid_calls_of_batches on paid_calls (owner) where state = 'started' and bought_for is not null;

create table paid_call_uses (
    id bigint generated always as identity primary key,
    key text not null,
    at timestamptz not null default clock_timestamp(),
    outcome text not null check (outcome in ('bought', 'reused', 'failed', 'lost')),
    pipeline text not null,
    item text not null,
    tenant text not null default '',
    provider text not null,
    operation text not null,
    model text not null,
    standin boolean not null default false,
    input_tokens bigint not null default 0,
    output_tokens bigint not null default 0,
    cost_usd numeric(12,6),
    seconds float8 not null default 0,
    error text,
    saved_usd numeric(12,6),
    half_price boolean not null default false
);
create index paid_call_uses_kind on paid_call_uses (provider, operation, model, id) where outcome = 'bought';
create index paid_call_uses_item on paid_call_uses (pipeline, item);
create index paid_call_uses_at on paid_call_uses (at);
create index paid_call_uses_key on paid_call_uses (key);
create trigger paid_call_uses_counted after insert on paid_call_uses referencing new table as added
    for each statement execute function count_paid_call_uses();

-- Questions that are not urgent, sent to a provider together at half its price. A row is a batch under way, for the work
-- item that waits for it. Its calls are rows of `paid_calls` that its token owns, and whose `bought_for` is the item
-- that asked.
create table ai_batches (
    item text primary key,
    token text not null unique,
    provider text not null,
    batch_id text,
    began_at timestamptz not null default now(),
    cancel_at timestamptz
);

create table spending_pauses (
    provider text primary key,
    until timestamptz not null,
    reason text not null
);

create table pending_images (
    id bigint generated by default as identity primary key,
    user_id bigint not null,
    image_path varchar(255) not null,
    original_name varchar(255),
    mime_type varchar(100),
    permanent_url varchar(500),
    thumbnail_url varchar(500),
    status text not null default 'pending' check (status in ('pending', 'processed', 'complete', 'failed')),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create index pending_images_open on pending_images (id) where status in ('pending', 'processed');
create index pending_images_path on pending_images (image_path);
create index pending_images_failed on pending_images (updated_at) where status = 'failed';
create trigger touch before update on pending_images
    for each row execute function touch_updated_at();

create table pending_intake (
    last_id bigint not null,
    seen_at timestamptz not null default now()
);

create table media_files (
    id bigint generated always as identity primary key,
    main_api_id bigint not null unique,
    user_id bigint not null,
    data_type text not null check (data_type in ('product', 'profile', 'event', 'logo', 'sites')),
    kind text not null,
    image_path text not null,
    original_name varchar(255),
    mime_type varchar(100),
    file_size bigint,
    sha256 text,
    width integer,
    height integer,
    animated boolean,
    bulk_path varchar(500),
    library_path varchar(500),
    focus jsonb,
    recipe text,
    background_removed boolean,
    notes jsonb not null default '[]',
    status text not null default 'downloading' check (status in ('downloading', 'processing', 'completed', 'failed')),
    error text,
    callback_acknowledged_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    upload_day date not null,
    trace text not null default '',
    private boolean not null default false,
    replaced_at timestamptz,
    held boolean not null default false
);
create index media_files_user on media_files (user_id);
create index media_files_day on media_files (upload_day, id);
create index media_files_sha256 on media_files (sha256);
create index media_files_status on media_files (status, id desc);
create index media_files_type on media_files (data_type, id desc);
create index media_files_name on media_files using gin (to_tsvector('simple'::regconfig, words_of_name(original_name)));
create index media_files_replaced on media_files (replaced_at) where replaced_at is not null;
create index media_files_path on media_files (image_path);
create trigger touch before update on media_files
    for each row execute function touch_updated_at();
create trigger tell_changed after delete or update of status, recipe, focus, error, private, held on media_files
    for each row execute function tell_media_changed('id');

create table processing_checklist (
    id bigint generated always as identity primary key,
    media_id bigint not null unique references media_files (id) on delete cascade,
    worker_id varchar(50) not null default '',
    retrieve_file text not null default 'pending' check (retrieve_file in ('pending', 'completed', 'failed')),
    ai_visual_analysis text not null default 'pending' check (ai_visual_analysis in ('pending', 'completed', 'failed')),
    resize_optimize text not null default 'pending' check (resize_optimize in ('pending', 'completed', 'failed')),
    update_callback text not null default 'pending' check (update_callback in ('pending', 'completed', 'failed')),
    retrieve_file_attempts integer not null default 0,
    ai_visual_analysis_attempts integer not null default 0,
    resize_optimize_attempts integer not null default 0,
    update_callback_attempts integer not null default 0,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create index processing_checklist_unacknowledged on processing_checklist (media_id)
    where (resize_optimize = 'completed') and (update_callback <> 'completed');
create trigger touch before update on processing_checklist
    for each row execute function touch_updated_at();

-- The words are generated and the colours follow by trigger, so that nothing which writes an analysis knows of the
-- search.
create table media_ai_analysis (
    id bigint generated always as identity primary key,
    media_id bigint not null unique references media_files (id) on delete cascade,
    dominant_colors jsonb,
    detected_objects jsonb,
    detected_text text,
    style_classification varchar(255),
    medium_detected varchar(255),
    subject_matter text,
    quality_score integer check (quality_score >= 0 and quality_score <= 100),
    mood_keywords jsonb,
    confidence_score float8,
    raw_google_response jsonb,
    raw_gpt4_response jsonb,
    alt_text text,
    labels jsonb,
    brand_name text,
    brand_colors jsonb,
    site_context jsonb,
    safe_search jsonb,
    measured jsonb,
    phash bigint,
    pixel_sha256 text,
    embedding vector(1536),
    boxes jsonb,
    providers jsonb not null default '{}',
    version text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    words tsvector generated always as (
        setweight(to_tsvector('english'::regconfig, coalesce(alt_text, '') || ' ' || coalesce(subject_matter, '')), 'A')
        || setweight(to_tsvector('english'::regconfig, coalesce(style_classification, '') || ' '
            || coalesce(medium_detected, '') || ' ' || coalesce(brand_name, '')), 'B')
        || setweight(to_tsvector('english'::regconfig, coalesce(labels, '[]'::jsonb)), 'B')
        || setweight(to_tsvector('english'::regconfig, coalesce(mood_keywords, '[]'::jsonb)), 'C')
        || setweight(to_tsvector('english'::regconfig, coalesce(detected_objects, '[]'::jsonb)), 'C')
        || setweight(to_tsvector('english'::regconfig, left(coalesce(detected_text, ''), 50000)), 'C')
    ) stored,
    placeholder text,
    answered_by jsonb not null default '{}',
    corrected jsonb not null default '{}'
);
create index media_ai_analysis_pixels on media_ai_analysis (pixel_sha256);
create index media_ai_analysis_words on media_ai_analysis using gin (words);
create index media_ai_analysis_meaning on media_ai_analysis using hnsw (embedding vector_cosine_ops);
create index media_ai_analysis_looks on media_ai_analysis using hnsw ((phash::bit(64)) bit_hamming_ops);
create index media_ai_analysis_corrected on media_ai_analysis (media_id) where corrected <> '{}';
create trigger touch before update on media_ai_analysis
    for each row execute function touch_updated_at();
create trigger colours_new after insert on media_ai_analysis
    for each row execute function media_colours_follow();
create trigger colours_changed after update of dominant_colors on media_ai_analysis
    for each row when (old.dominant_colors is distinct from new.dominant_colors)
    execute function media_colours_follow();
create trigger keep_corrections before update on media_ai_analysis
    for each row when ((old.corrected <> '{}') or (new.corrected <> '{}'))
    execute function keep_corrections();

create table media_variants (
    media_id bigint not null references media_files (id) on delete cascade,
    size text not null,
    format text not null,
    background text not null check (background in ('original', 'removed')),
    width integer not null,
    height integer not null,
    bytes integer not null,
    sha256 text not null,
    object_key text not null,
    quality integer,
    score real,
    recipe text not null,
    created_at timestamptz not null default now(),
    primary key (media_id, size, format, background)
);
create trigger tell_changed after insert or delete or update on media_variants
    for each row execute function tell_media_changed('media_id');

create table user_profiles (
    user_id bigint primary key,
    display_name text,
    first_name text,
    last_name text,
    bio text,
    website text,
    phone text,
    location text,
    profile_image_path text,
    header_image_path text,
    updated_at timestamptz not null default now()
);
create index user_profiles_profile_image on user_profiles (profile_image_path);
create index user_profiles_header_image on user_profiles (header_image_path);
create trigger touch before update on user_profiles
    for each row execute function touch_updated_at();

create table artist_profiles (
    user_id bigint primary key,
    logo_path text,
    updated_at timestamptz not null default now()
);
create index artist_profiles_logo on artist_profiles (logo_path);

create table promoter_profiles (
    user_id bigint primary key,
    logo_path text,
    updated_at timestamptz not null default now()
);
create index promoter_profiles_logo on promoter_profiles (logo_path);

create table site_media (
    id bigint generated by default as identity primary key,
    user_id bigint not null,
    media_path text not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create index site_media_user on site_media (user_id);
create index site_media_path on site_media (media_path);

create table product_media (
    id bigint generated by default as identity primary key,
    user_id bigint not null,
    media_path text not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create index product_media_user on product_media (user_id);
create index product_media_path on product_media (media_path);

create table event_media (
    id bigint generated by default as identity primary key,
    user_id bigint not null,
    media_path text not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create index event_media_user on event_media (user_id);
create index event_media_path on event_media (media_path);

-- Differences; their sum is the count. A count per queue and state in one row would be a lock that every worker
-- waits for.
create table work_counts (
    queue text not null,
    state text not null,
    n bigint not null
);
alter table work_counts set (
    autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);
create function work_counts_add_up() returns void language sql as $$
with gone as (
    delete from work_counts
    where ctid = any(array(select ctid from work_counts for update skip locked))
    returning queue, state, n
)
insert into work_counts select queue, state, sum(n) from gone group by queue, state having sum(n) <> 0
$$;

create table heartbeats (
    name text primary key,
    beat_at timestamptz not null default now(),
    detail jsonb not null default '{}'
);

create table image_config_changes (
    id bigint generated always as identity primary key,
    customer_id text not null,
    changed_by text not null,
    changed_at timestamptz not null default now(),
    before jsonb,
    after jsonb not null
);
create index image_config_changes_customer on image_config_changes (customer_id, id desc);

create table work_served (
    queue text not null,
    partition text not null,
    lane integer not null,
    turn bigint not null,
    primary key (queue, partition, lane)
);
alter table work_served set (
    fillfactor = 20, autovacuum_vacuum_threshold = 500);

create table work_turns (
    queue text not null,
    partition text not null,
    tenant text not null,
    flow text not null check (flow in ('new', 'back', 'again')),
    last_turn bigint not null,
    added bigint not null,
    primary key (queue, partition, tenant, flow)
);
alter table work_turns set (
    fillfactor = 50, autovacuum_vacuum_threshold = 500);

create table image_queue (
    id bigint generated always as identity primary key,
    public_id uuid not null unique,
    listing_title text not null,
    file_name text not null unique,
    status text not null default 'pending' check (status in ('pending', 'processed', 'retry', 'failed')),
    error text,
    retries integer not null default 0,
    max_retries integer not null,
    user_id bigint,
    original_name text not null,
    original_key text not null unique,
    content_type text not null,
    bytes integer not null,
    width integer not null,
    height integer not null,
    webp_sha256 text,
    webp_bytes integer,
    webp_width integer,
    webp_height integer,
    webp_frames integer,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    processed_at timestamptz,
    listing_id uuid,
    held boolean not null default false
);
create index image_queue_open on image_queue (status, id) where status <> 'processed';
create index image_queue_listing on image_queue (listing_id) where listing_id is not null;
create index image_queue_user on image_queue (user_id);

-- Answers under an Idempotency-Key.
create table kept_answers (
    caller text not null,
    idempotency_key text not null,
    request_sha256 text not null,
    answer json not null,
    created_at timestamptz not null default now(),
    route text not null default 'listings',
    primary key (route, caller, idempotency_key)
);
create index kept_answers_created on kept_answers (created_at);

create table job_definitions (
    id text primary key,
    name text not null,
    description text not null,
    type text not null,
    interval text not null,
    payload jsonb not null default '{}',
    enabled boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    last_checked_at timestamptz,
    last_started_at timestamptz,
    last_finished_at timestamptz,
    last_run_id text,
    last_result jsonb
);

create table cron_jobs (
    id bigint generated always as identity primary key,
    job_id uuid not null default gen_random_uuid() unique,
    name text not null,
    schedule text not null,
    timezone text not null,
    external_api_get_url text not null,
    external_api_post_url text not null,
    external_api_key text not null,
    backend_api_url text not null,
    organization_id text not null,
    enabled boolean not null,
    next_run_at timestamptz,
    last_run_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    urgent boolean not null default true
);
create index cron_jobs_due on cron_jobs (next_run_at) where next_run_at is not null;
create trigger touch before update on cron_jobs
    for each row execute function touch_updated_at();

create table vision_executions (
    id bigint generated always as identity primary key,
    execution_id uuid not null default gen_random_uuid() unique,
    cron_job_id bigint references cron_jobs (id) on delete cascade,
    connection text,
    trigger text not null check (trigger in ('scheduled', 'manual', 'command', 'backfill')),
    reference text unique,
    status text not null default 'running' check (status in ('running', 'success', 'partial', 'failed')),
    started_at timestamptz not null default now(),
    listed_at timestamptz,
    finished_at timestamptz,
    total integer not null default 0,
    successful integer not null default 0,
    failed integer not null default 0,
    error text,
    run_id text,
    unusable integer not null default 0
);
create index vision_executions_recent on vision_executions (cron_job_id, started_at desc);

create table vision_analyses (
    id bigint generated always as identity primary key,
    source text not null,
    organization_id text not null,
    vision_analysis_id text not null,
    execution_id bigint references vision_executions (id) on delete set null,
    run_code text not null default '',
    user_query text not null default '',
    created_day date not null,
    documents text not null,
    status text not null default 'waiting' check (status in ('waiting', 'submitted', 'delivered', 'failed')),
    reference uuid not null default gen_random_uuid(),
    batch_id text,
    submitted_at timestamptz,
    upload_started_at timestamptz,
    delivered_at timestamptz,
    redelivery boolean not null default false,
    images_total integer,
    images_usable integer,
    error text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create unique index vision_analyses_identity on vision_analyses
    (source, lower(organization_id), lower(vision_analysis_id));
create index vision_analyses_day on vision_analyses (created_day);
create index vision_analyses_execution on vision_analyses (execution_id);
create trigger touch before update on vision_analyses
    for each row execute function touch_updated_at();

create table vision_outcomes (
    execution_id bigint not null references vision_executions (id) on delete cascade,
    analysis_id bigint not null references vision_analyses (id) on delete cascade,
    status text not null default 'running' check (status in ('running', 'success', 'failed')),
    batch_id text,
    error text,
    started_at timestamptz not null default now(),
    finished_at timestamptz,
    images_total integer,
    images_usable integer,
    primary key (execution_id, analysis_id)
);

create table vision_uploads (
    id bigint generated always as identity primary key,
    image_id uuid not null unique,
    organization_id text not null,
    name text not null,
    object_key text not null,
    bytes integer not null,
    width integer not null,
    height integer not null,
    format text not null,
    created_at timestamptz not null default now()
);
create index vision_uploads_age on vision_uploads (created_at);

create table vision_batches (
    id bigint generated always as identity primary key,
    batch_id uuid not null default gen_random_uuid() unique,
    reference text unique,
    organization_id text not null,
    user_query text not null,
    model text not null,
    unavailable jsonb not null default '[]',
    notes jsonb not null default '[]',
    status text not null default 'queued' check (status in ('queued', 'running', 'completed', 'failed')),
    error text,
    report_key text,
    created_at timestamptz not null default now(),
    finished_at timestamptz,
    report_bytes integer,
    urgent boolean not null default true
);

create table vision_batch_images (
    batch_id bigint not null references vision_batches (id) on delete cascade,
    position integer not null,
    image_id uuid not null references vision_uploads (image_id),
    description text not null default '',
    status text not null default 'waiting' check (status in ('waiting', 'done', 'failed')),
    measured jsonb,
    analysis jsonb,
    error text,
    view_bytes integer,
    primary key (batch_id, "position")
);
create index vision_batch_images_image on vision_batch_images (image_id);

create table generation_tasks (
    id bigint generated always as identity primary key,
    task_id text not null default gen_random_uuid()::text unique,
    status text not null default 'pending'
        check (status in (
            'pending', 'generating-data', 'data-generated', 'generating-images', 'completed', 'failed', 'cancelled')),
    persona_count integer not null check (persona_count >= 1 and persona_count <= 500),
    brief text not null,
    language text not null,
    style text not null,
    seed bigint not null,
    error_log text,
    waiting_for text,
    manifest_url text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    started_at timestamptz,
    finished_at timestamptz,
    images_removed_at timestamptz,
    urgent boolean not null default true
);
create index generation_tasks_open on generation_tasks (updated_at)
    where status <> ALL (ARRAY['completed', 'failed', 'cancelled']);
create index generation_tasks_unwritten on generation_tasks (finished_at)
    where (status = 'completed') and (manifest_url is null);
create index generation_tasks_removable on generation_tasks (finished_at)
    where (status in ('failed', 'cancelled')) and (images_removed_at is null);
create trigger touch before update on generation_tasks
    for each row execute function touch_updated_at();

create table generation_batches (
    task_id bigint not null references generation_tasks (id) on delete cascade,
    number integer not null,
    round integer not null,
    positions integer[] not null,
    question jsonb not null,
    answered_at timestamptz,
    cost_usd numeric(12,6) not null default 0,
    problem text,
    primary key (task_id, number)
);

create table generation_results (
    id bigint generated always as identity primary key,
    task_id bigint not null references generation_tasks (id) on delete cascade,
    position integer not null,
    firstname text,
    lastname text,
    name_key text,
    gender text,
    age integer,
    nationality text,
    occupation text,
    bio text,
    appearance text,
    status text not null default 'pending' check (status in ('pending', 'completed', 'failed', 'cancelled')),
    step smallint not null default 0 check (step >= 0 and step <= 7),
    error text,
    image_prompt text,
    base_object text,
    grid_object text,
    base_tries smallint not null default 1,
    grid_tries smallint not null default 1,
    edition integer not null default 0,
    split jsonb,
    images jsonb not null default '{}',
    quality jsonb not null default '{}',
    model text,
    standin boolean not null default false,
    cost_usd numeric(12,6) not null default 0,
    base_image_url text,
    image_1_url text,
    image_2_url text,
    image_3_url text,
    image_4_url text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    finished_at timestamptz,
    unique (task_id, name_key),
    unique (task_id, "position")
);
create index generation_results_finished on generation_results (finished_at);
create trigger touch before update on generation_results
    for each row execute function touch_updated_at();

-- A handful of rows that every batch updates: room on their pages keeps the updates out of the index.
create table stage_times (
    queue text not null,
    stage text not null,
    outcome text not null check (outcome in ('done', 'retried', 'failed', 'lost')),
    items bigint not null,
    seconds float8 not null,
    primary key (queue, stage, outcome)
);
alter table stage_times set (
    fillfactor = 50);

create table media_colours (
    media_id bigint not null references media_files (id) on delete cascade,
    place smallint not null,
    lab vector(3) not null,
    share real not null,
    primary key (media_id, place)
);
create index media_colours_lab on media_colours using hnsw (lab vector_l2_ops);
create function media_colours_of(media bigint, colours jsonb) returns void language sql as $$
insert into media_colours
select media, place, oklab_of(colour ->> 'hex'), coalesce((colour ->> 'share')::real, 0)
from jsonb_array_elements(case when jsonb_typeof(colours) = 'array' then colours else '[]' end)
    with ordinality as c (colour, place)
where jsonb_typeof(colour) = 'object' and oklab_of(colour ->> 'hex') is not null
$$;

create table upload_traces (
    pending_id bigint primary key,
    trace text not null,
    created_at timestamptz not null default now()
);

create table reported_analyses (
    pending_id bigint primary key,
    media_id text not null,
    analysis jsonb not null,
    reported_at timestamptz not null default now()
);
create index reported_analyses_media on reported_analyses (media_id);

create table media_uploads (
    id text primary key,
    user_id bigint not null,
    field text not null,
    original_name varchar(255) not null,
    content_type text not null,
    bytes bigint not null,
    private boolean not null,
    object_key text not null unique,
    pending_id bigint,
    image_path text,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null
);
create index media_uploads_user on media_uploads (user_id, expires_at);
create index media_uploads_private on media_uploads (image_path) where private;

create table media_callers (
    media_id bigint not null references media_files (id) on delete cascade,
    kind text not null check (kind in ('page', 'client')),
    caller text not null,
    size text not null,
    format text not null,
    requests bigint not null,
    first_at timestamptz not null default now(),
    last_at timestamptz not null default now(),
    primary key (media_id, kind, caller, size, format)
);
create index media_callers_age on media_callers (last_at);
alter table media_callers set (
    fillfactor = 80);

create table work_bins (
    bin timestamptz not null,
    queue text not null,
    outcome text not null,
    n bigint not null,
    primary key (bin, queue, outcome)
);

-- Sessions that somebody signed out of before they expired.
create table ended_sessions (
    session_id text primary key,
    expires_at timestamptz not null
);

-- `paid_call_uses` by day (UTC), kept by a trigger.
create table spending_days (
    day date not null,
    pipeline text not null,
    provider text not null,
    model text not null,
    bought bigint not null,
    reused bigint not null,
    failed bigint not null,
    lost bigint not null,
    standin bigint not null,
    unknown_cost bigint not null,
    input_tokens bigint not null,
    output_tokens bigint not null,
    cost_usd numeric(14,6) not null,
    seconds float8 not null,
    operation text not null default '',
    saved_usd numeric(14,6) not null default 0,
    primary key (day, pipeline, provider, model, operation)
);

create table api_keys (
    id bigint generated always as identity primary key,
    name text not null,
    role text not null check (role in ('viewer', 'operator', 'admin')),
    hash bytea not null unique,
    created_at timestamptz not null default now(),
    created_by text not null,
    expires_at timestamptz,
    revoked_at timestamptz
);
create unique index api_keys_name on api_keys (name) where revoked_at is null;

-- A row stays after the purge. It names no file and has no hash of one: `addresses` are digests, keyed with
-- SECRET_KEY, of
-- the URLs and object keys that must not come back.
create table deletions (
    id bigint generated always as identity primary key,
    what text not null unique,
    kind text not null,
    item bigint not null,
    user_id bigint,
    who text not null,
    why text not null,
    addresses uuid[] not null default '{}',
    queues text[] not null default '{}',
    objects integer not null default 0,
    trashed_at timestamptz not null default now(),
    purge_after timestamptz not null,
    purging_at timestamptz,
    purged_at timestamptz,
    unique (kind, item)
);
create index deletions_trash on deletions (kind, id desc) where purged_at is null;
create index deletions_due on deletions (purge_after) where purging_at is null;
create index deletions_fresh on deletions (trashed_at);
create index deletions_user on deletions (user_id, id);
create index deletions_addresses on deletions using gin (addresses);
create trigger tell_deleted after insert or delete on deletions
    for each row execute function tell_deleted();

create table erasures (
    id bigint generated always as identity primary key,
    erasure_id uuid not null default gen_random_uuid() unique,
    user_id bigint not null,
    asked_by text not null,
    state text not null default 'running' check (state in ('running', 'done', 'failed')),
    counts jsonb not null default '{}',
    verified jsonb,
    error text,
    created_at timestamptz not null default now(),
    finished_at timestamptz
);
create unique index erasures_one on erasures (user_id) where state <> 'done';

create table cdn_purges (
    id bigint generated always as identity primary key,
    tag text not null,
    created_at timestamptz not null default now()
);

create table budgets (
    scope text not null,
    period text not null check (period in ('day', 'month')),
    limit_usd numeric(14,6) not null check (limit_usd >= 0),
    alert_at float8[] not null,
    primary key (scope, period)
);

-- Budgets that refused a call: in the period from `began`, at this limit.
create table budget_stops (
    scope text not null,
    period text not null,
    began date not null,
    limit_usd numeric(14,6) not null,
    primary key (scope, period)
);

create table spending_tenants (
    tenant text not null,
    day date not null,
    bought bigint not null,
    reused bigint not null,
    cost_usd numeric(14,6) not null,
    saved_usd numeric(14,6) not null,
    primary key (tenant, day)
);
create index spending_tenants_day on spending_tenants (day);

-- Whether an image is held back stands on its own row as well, so that nothing more is asked for before it is shown.
create table verdicts (
    id bigint generated always as identity primary key,
    kind text not null,
    item bigint not null,
    user_id bigint,
    digest uuid not null,
    state text not null default 'waiting'
        check (state in ('waiting', 'clear', 'flagged', 'held', 'approved', 'rejected')),
    holding boolean not null,
    by_person boolean not null default false,
    provider text,
    model text,
    scores jsonb not null default '{}',
    categories text[] not null default '{}',
    decided_by text,
    decided_at timestamptz,
    reason text,
    reports integer not null default 0,
    review_since timestamptz,
    claimed_by text,
    claimed_until timestamptz,
    moved_at timestamptz not null default now(),
    created_at timestamptz not null default now(),
    unique (kind, item)
);
create index verdicts_review on verdicts (review_since, id) where review_since is not null;
create index verdicts_decided on verdicts (decided_at);
create index verdicts_moved on verdicts (moved_at);
create index verdicts_digest on verdicts (digest);
create index verdicts_user on verdicts (user_id, id);

-- `digest` is of the bytes, keyed with SECRET_KEY: what people decided of them outlives the image, and its hash
-- does not.
create table decisions (
    digest uuid primary key,
    approved boolean not null,
    what text not null,
    reason text not null,
    decided_by text not null,
    decided_at timestamptz not null default now()
);

create table reports (
    kind text not null,
    item bigint not null,
    reporter uuid not null,
    reason text not null,
    created_at timestamptz not null default now(),
    primary key (kind, item, reporter)
);

-- Whose vectors the search's column holds, and those of a rebuild. An empty `model` is that of the first vector to
-- come.
create table embedding_space (
    one boolean default true primary key check (one),
    model text not null default '',
    dimensions integer not null default 1536,
    next_model text,
    next_dimensions integer
);


-- Views without what was deleted. A revision that gives one of these tables a column has to make its view anew.
create view live_media as
    select f.* from media_files f where not exists (select from deletions d where d.kind = 'media' and d.item = f.id);
create view live_image_queue as
    select i.* from image_queue i
    where not exists (select from deletions d where d.kind = 'listings' and d.item = i.id);

insert into job_definitions (id, name, description, type, interval, payload) values (
    'process-image-queue', 'Process Image Queue', 'Process pending images in queue', 'process_images', '10s',
    '{"batch_size": 10}');
insert into embedding_space default values;

create table audit (
    id bigint generated always as identity,
    at timestamptz not null default now(),
    who text not null,
    role text,
    kind text not null,
    address text not null,
    action text not null,
    subject text not null,
    before jsonb,
    after jsonb
) partition by range (at);
create index audit_id on audit (id desc);
create trigger audit_is_append_only before update or delete on audit
    for each row execute function audit_refuses();
create trigger audit_is_not_emptied before truncate on audit
    for each statement execute function audit_refuses();
select audit_month(now()), audit_month(now() + interval '1 month');
