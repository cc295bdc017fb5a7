-- From now on events are written into the log of the server, and not into the outbox: whoever publishes writes no row. The
-- drainer reads them out of a slot and puts them into the outbox itself, in the order of the commits.
DO $log$
BEGIN
    -- The router may be about to end it.
    PERFORM FROM wamp.setting FOR UPDATE;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots AS own
                    WHERE own.slot_name = 'wamp_' || (SELECT d.oid FROM pg_catalog.pg_database AS d
                                                       WHERE d.datname = pg_catalog.current_database())) THEN
        RAISE EXCEPTION 'the slot of the log was dropped meanwhile' USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Run the same command again.';
    END IF;
    IF (SELECT log_ends FROM wamp.setting) THEN
        RAISE EXCEPTION 'rows that were published since wait until the router has read what is left in the log'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Start the router, or give it a moment, and run the same command again.';
    END IF;
    IF pg_catalog.current_setting('wamp.slot_is_new', true) = 'on' OR NOT (SELECT log_is_on FROM wamp.setting) THEN
        -- Nothing of it has been read, though the slot may be left by a command that was killed. The log may be that of another
        -- server, whose places begin anew: by way of a backup.
        UPDATE wamp.drain SET log_commit = '0/0', log_place = 0;
    END IF;
    UPDATE wamp.setting SET log_is_on = true, log_ends = false;
    PERFORM pg_catalog.pg_notify('wamp', 'log');
END
$log$;

CREATE OR REPLACE FUNCTION wamp.to_log() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- The log is not converted for who reads it, so it is written as that one wants it. And everybody can write the setting, but
    -- not with the prefix: wamp.enqueue believes nobody else. It comes out of the table and not by way of a variable, which would be
    -- a constant of the plan, and `debug_print_plan` shows plans to whoever publishes.
    PERFORM set_config('wamp.logged',
                       setting.log_prefix || ' '
                       || (pg_logical_emit_message(true, setting.log_prefix, convert_to(row_to_json(NEW)::text, 'UTF8'))
                           - '0/0'::pg_lsn), true)
       FROM wamp.setting;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION wamp.to_log() FROM PUBLIC;

-- Calls stay rows: what becomes of them is written there. The drainer's own rows come from the log.
-- It waits for all transactions that have published, and those that come wait for it: so not for long.
SET LOCAL lock_timeout = '30s';
CREATE OR REPLACE TRIGGER to_log BEFORE INSERT ON wamp.outbox FOR EACH ROW
    WHEN (NEW.kind = 'event' AND pg_catalog.current_setting('wamp.feeding', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION wamp.to_log();
