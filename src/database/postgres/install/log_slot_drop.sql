-- The server does not keep its log any longer for what was not installed.
DO $slot$
DECLARE
    slot text := 'wamp_' || (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database());
BEGIN
    PERFORM pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots WHERE slot_name = slot;
    DROP PUBLICATION IF EXISTS wamp;
END
$slot$;
