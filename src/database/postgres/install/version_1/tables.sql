-- What is kept. Nobody but the owner reads or writes a table directly; what others may do, functions do for them.

CREATE TABLE IF NOT EXISTS wamp.outbox (
    -- Drawn when a row is written, so not the order in which rows become visible. That is `position`.
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- event or call. Only `wamp.enqueue` writes it; a CHECK would be a seventh of what a publication costs.
    kind         text NOT NULL,
    -- The topic, or the procedure of a call.
    uri          text NOT NULL,
    -- Text and not jsonb: it is written out once, here, and goes as it is into what clients are sent.
    args         json,
    kwargs       json,
    options      json,
    -- Of uri, args, kwargs and options together, so that no bound has to read them.
    bytes        integer NOT NULL,
    -- The WAMP session on whose behalf the statement ran, and how many events led to it, one behind the other.
    session      bigint,
    depth        integer NOT NULL,
    db_user      text NOT NULL,
    published_at timestamptz NOT NULL,
    -- Given by the one drainer, without a gap, and never changed.
    position     bigint,
    assigned_at  timestamptz,
    -- Feedback. `error` is written whenever there is one, the rest where the configuration wants it.
    sent_at      timestamptz,
    receivers    bigint,
    error        text,
    -- Why the drainer will not touch this row again.
    set_aside    text,
    -- Whether it came by the log of the server; null is no.
    logged       boolean
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 10000);

CREATE INDEX IF NOT EXISTS outbox_waiting ON wamp.outbox (id) WHERE position IS NULL AND set_aside IS NULL;
CREATE UNIQUE INDEX IF NOT EXISTS outbox_position ON wamp.outbox (position) WHERE position IS NOT NULL;
CREATE INDEX IF NOT EXISTS outbox_set_aside ON wamp.outbox (published_at) WHERE set_aside IS NOT NULL;

-- How far the drainer is: one row. Positions up to `sent` are sent, up to `last` assigned, up to `pruned` gone.
CREATE TABLE IF NOT EXISTS wamp.drain (
    one    boolean PRIMARY KEY DEFAULT true CHECK (one),
    last   bigint NOT NULL DEFAULT 0,
    sent   bigint NOT NULL DEFAULT 0,
    pruned bigint NOT NULL DEFAULT 0,
    -- Counts the routers that have led. What an earlier one still wants is refused.
    epoch  bigint NOT NULL DEFAULT 0,
    leader text,
    led_at timestamptz,
    -- No row up to `floor` waits, or will ever be seen to: looking begins behind it. Otherwise a transaction that reads for
    -- hours, whose snapshot keeps the index from being cleaned, would make every look as long as all that came since.
    -- `floor_next` may follow when all transactions up to `floor_horizon` have ended.
    floor         bigint NOT NULL DEFAULT 0,
    floor_next    bigint,
    floor_horizon xid8,
    -- Of the log, what is in the outbox: up to this commit, and this message of it.
    log_commit pg_lsn NOT NULL DEFAULT '0/0',
    log_place  bigint NOT NULL DEFAULT 0,
    CHECK (pruned <= sent AND sent <= last)
) WITH (fillfactor = 10);
INSERT INTO wamp.drain DEFAULT VALUES ON CONFLICT DO NOTHING;

-- 1 while the drainer sleeps and must be woken, 0 while it polls. A sequence, because the value of a sequence is read
-- outside of every snapshot: a transaction in REPEATABLE READ sees it change.
CREATE SEQUENCE IF NOT EXISTS wamp.asleep MINVALUE 0 START 0 CACHE 1;

CREATE TABLE IF NOT EXISTS wamp.setting (
    one             boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- Below 4 KiB nobody asks, so that a small event costs no look here.
    event_bytes_max integer NOT NULL DEFAULT 1048576 CHECK (event_bytes_max BETWEEN 4096 AND 16777216),
    -- What events bear in the log of the server: nobody else knows it, so nobody else can write one. It never changes, for a
    -- transaction that sees the database as it was long ago writes with it, too.
    log_prefix      text NOT NULL DEFAULT 'wamp ' || pg_catalog.gen_random_uuid(),
    -- Events are written into the log.
    log_is_on       boolean NOT NULL DEFAULT false,
    -- Not any more, but there may be some in it: rows wait until those are in the outbox.
    log_ends        boolean NOT NULL DEFAULT false,
    CHECK (log_is_on OR NOT log_ends)
);
INSERT INTO wamp.setting DEFAULT VALUES ON CONFLICT DO NOTHING;

-- Who may do what; what no row allows is denied.
CREATE TABLE IF NOT EXISTS wamp.rule (
    -- By number and not by name: a new role with the name of a dropped one inherits nothing. 0 is everybody.
    grantee regrole NOT NULL,
    action  text NOT NULL CHECK (action IN ('publish', 'subscribe', 'register', 'call')),
    uri     text NOT NULL,
    match   text NOT NULL CHECK (match IN ('exact', 'prefix')),
    PRIMARY KEY (grantee, action, uri, match)
);

-- Roles of routers: they may drain. Kept so that an upgrade gives them what it adds.
CREATE TABLE IF NOT EXISTS wamp.router (
    role regrole PRIMARY KEY
);

-- Triggers that `wamp.watch` made. Their events were allowed then, once, for whoever changes the table later.
CREATE TABLE IF NOT EXISTS wamp.watched (
    relation   regclass NOT NULL,
    topic      text NOT NULL,
    columns    text[] NOT NULL,
    watched_by text NOT NULL,
    watched_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (relation, topic)
);

-- Functions are kept as text: columns of type regprocedure would stand in the way of pg_upgrade.
CREATE TABLE IF NOT EXISTS wamp.registration (
    uri           text PRIMARY KEY,
    function      text NOT NULL,
    options       jsonb NOT NULL,
    registered_by text NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);

CREATE TABLE IF NOT EXISTS wamp.subscription (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic         text NOT NULL,
    match         text NOT NULL CHECK (match IN ('exact', 'prefix', 'wildcard')),
    function      text NOT NULL,
    subscribed_by text NOT NULL,
    subscribed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    UNIQUE (topic, match, function)
);

-- Calls that statements make: `id` is that of the row in the outbox, which only says that there is one.
CREATE TABLE IF NOT EXISTS wamp.call (
    id          bigint PRIMARY KEY,
    procedure   text NOT NULL,
    -- Until it is answered, and their bytes.
    args        json,
    kwargs      json,
    bytes       integer NOT NULL,
    on_result   text,
    -- So long after `called_at` nobody waits any more, and it is not made. Null: as long as the router gives it.
    timeout_ms  integer CHECK (timeout_ms > 0),
    -- As that of the outbox: what `on_result` publishes has it, too.
    depth       integer NOT NULL,
    db_user     text NOT NULL,
    called_at   timestamptz NOT NULL,
    finished_at timestamptz,
    -- {"args", "kwargs"}, or {"error", "args", "kwargs"}.
    outcome     jsonb
);
CREATE INDEX IF NOT EXISTS call_called_at ON wamp.call (called_at);
CREATE INDEX IF NOT EXISTS call_open ON wamp.call (id) WHERE finished_at IS NULL;

-- Events whose function failed as often as it was tried.
CREATE TABLE IF NOT EXISTS wamp.dead_letter (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    function  text NOT NULL,
    topic     text NOT NULL,
    args      json,
    kwargs    json,
    details   json,
    error     text NOT NULL,
    attempts  integer NOT NULL,
    buried_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
CREATE INDEX IF NOT EXISTS dead_letter_buried_at ON wamp.dead_letter (buried_at);

-- What became of one's own publications.
CREATE OR REPLACE VIEW wamp.publication WITH (security_barrier) AS
    SELECT id, position, uri AS topic, args, kwargs, options, published_at, sent_at, receivers, error, set_aside
      FROM wamp.outbox
     WHERE kind = 'event' AND db_user = session_user;
