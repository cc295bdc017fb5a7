-- Before anything is written into the log: the server keeps it for whoever reads this slot, from here on. It cannot be made
-- in a transaction that has written, and waits for those that are under way.
DO $slot$
DECLARE
    slot text := 'wamp_' || (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database());
BEGIN
    -- The server has thrown away what one was kept for that was not read for too long.
    PERFORM pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots
      WHERE slot_name = slot AND wal_status = 'lost';
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = slot) THEN
        PERFORM pg_catalog.pg_create_logical_replication_slot(slot, 'pgoutput');
        PERFORM pg_catalog.set_config('wamp.slot_is_new', 'on', true);
    END IF;
END
$slot$;
