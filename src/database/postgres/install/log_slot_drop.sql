-- The server does not keep its log any longer for what was not installed.
DO $slot$
DECLARE
    slot text := 'wamp_' || (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database());
BEGIN
    PERFORM pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots WHERE slot_name = slot;
    -- Not one of the same name that somebody else has made.
    IF EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = 'wamp' AND NOT puballtables)
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_publication_tables WHERE pubname = 'wamp') THEN
        DROP PUBLICATION wamp;
    END IF;
END
$slot$;
