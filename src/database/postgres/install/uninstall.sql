-- Removes the schemas, and with them every trigger that calls wamp.notify_row.
DO $facade$
BEGIN
    IF pg_catalog.obj_description(pg_catalog.to_regnamespace('crossbar'), 'pg_namespace')
       = 'Crosspoint: old names for what is in the schema wamp' THEN
        DROP SCHEMA crossbar CASCADE;
    END IF;
END
$facade$;
DROP SCHEMA wamp CASCADE;
