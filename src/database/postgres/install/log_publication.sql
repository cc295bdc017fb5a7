-- Of no table: messages alone are read. Before the slot, and committed, for who reads the slot asks for it at every place of the log.
DO $publication$
BEGIN
    IF pg_catalog.current_setting('wal_level') <> 'logical' THEN
        RAISE EXCEPTION 'the server does not write messages into its log' USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Set wal_level = logical and restart it.';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = 'wamp') THEN
        CREATE PUBLICATION wamp;
    END IF;
END
$publication$;
