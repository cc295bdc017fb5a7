-- Only one installation at a time, and only over what is known. Runs before every other script, in the same transaction.
SELECT pg_catalog.pg_advisory_xact_lock(2002873712, 0);

DO $begin$
BEGIN
    -- Triggers cannot be replaced before.
    IF pg_catalog.current_setting('server_version_num')::integer < 140000 THEN
        RAISE EXCEPTION 'this is PostgreSQL %, and 14 or a later one is needed', pg_catalog.current_setting('server_version')
            USING ERRCODE = 'feature_not_supported', HINT = 'Upgrade the server.';
    END IF;
    IF pg_catalog.to_regnamespace('wamp') IS NULL THEN
        CREATE SCHEMA wamp;
    ELSIF pg_catalog.to_regclass('wamp.version') IS NULL AND EXISTS (
        SELECT FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.to_regnamespace('wamp')
        UNION ALL
        SELECT FROM pg_catalog.pg_proc WHERE pronamespace = pg_catalog.to_regnamespace('wamp')
    ) THEN
        RAISE EXCEPTION 'this database has a schema "wamp" that is not Crosspoint''s'
            USING ERRCODE = 'duplicate_schema',
                  HINT = 'Rename it (ALTER SCHEMA wamp RENAME TO ...), or use another database.';
    END IF;
END
$begin$;

CREATE TABLE IF NOT EXISTS wamp.version (
    number       integer PRIMARY KEY,
    installed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    installed_by text NOT NULL DEFAULT session_user
);
