-- From now on events are written into the log of the server, and not into the outbox: whoever publishes writes no row. The
-- drainer reads them out of a slot and puts them into the outbox itself, in the order of the commits.
DO $log$
BEGIN
    IF (SELECT log_prefix IS NULL FROM wamp.setting) THEN
        UPDATE wamp.drain SET log_commit = '0/0', log_place = 0;
        UPDATE wamp.setting SET log_prefix = 'wamp ' || pg_catalog.gen_random_uuid();
    END IF;
    UPDATE wamp.setting SET log_ends = false;
END
$log$;

CREATE OR REPLACE FUNCTION wamp.to_log() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('wamp.logged', (pg_logical_emit_message(true, (SELECT log_prefix FROM wamp.setting),
                                                               row_to_json(NEW)::text) - '0/0'::pg_lsn)::text, true);
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION wamp.to_log() FROM PUBLIC;

-- Calls stay rows: what becomes of them is written there. The drainer's own rows come from the log.
CREATE OR REPLACE TRIGGER to_log BEFORE INSERT ON wamp.outbox FOR EACH ROW
    WHEN (NEW.kind = 'event' AND pg_catalog.current_setting('wamp.feeding', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION wamp.to_log();
