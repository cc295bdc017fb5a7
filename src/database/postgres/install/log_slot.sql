-- Before anything is written into the log: the server keeps it for whoever reads this slot, from here on. It cannot be made
-- in a transaction that has written, and waits for those that are under way.
DO $slot$
DECLARE
    slot text := 'wamp_' || (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database());
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = slot) THEN
        PERFORM pg_catalog.pg_create_logical_replication_slot(slot, 'pgoutput');
    END IF;
END
$slot$;
