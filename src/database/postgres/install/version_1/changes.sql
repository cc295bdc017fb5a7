-- Changes of functions, as routers hear of them at once. Only superusers can have that done: without it routers look every
-- few seconds, and wamp.reload() has them look now.

CREATE OR REPLACE FUNCTION wamp.notify_schema() RETURNS event_trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_notify('wamp_schema', '');
END
$$;

DO $trigger$
BEGIN
    IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) current_user) THEN
        DROP EVENT TRIGGER IF EXISTS wamp_schema;
        -- No others: whoever notifies commits one behind the other.
        CREATE EVENT TRIGGER wamp_schema ON ddl_command_end
            WHEN TAG IN ('CREATE FUNCTION', 'ALTER FUNCTION', 'DROP FUNCTION', 'CREATE PROCEDURE', 'ALTER PROCEDURE',
                         'DROP PROCEDURE', 'ALTER ROUTINE', 'DROP ROUTINE', 'COMMENT', 'CREATE TYPE', 'ALTER TYPE',
                         'DROP TYPE', 'CREATE DOMAIN', 'ALTER DOMAIN', 'DROP DOMAIN', 'DROP SCHEMA')
            EXECUTE FUNCTION wamp.notify_schema();
    END IF;
END
$trigger$;
