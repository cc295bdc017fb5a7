-- Refuses to uninstall while there is something that would be lost; a forced one leaves this out.
DO $guard$
DECLARE
    waiting bigint;
    dependents text;
BEGIN
    SELECT pg_catalog.count(*) INTO waiting FROM wamp.outbox, wamp.drain
     WHERE set_aside IS NULL AND (position IS NULL OR position > sent);
    IF waiting > 0 THEN
        RAISE EXCEPTION '% events have not been sent', waiting
            USING ERRCODE = 'object_in_use', HINT = 'Start the router, or force it and lose them.';
    END IF;
    IF (SELECT log_is_on FROM wamp.setting) THEN
        RAISE EXCEPTION 'events are written into the log of the server, and there may be some in it'
            USING ERRCODE = 'object_in_use',
                  HINT = 'Run `crosspoint db install --log no` and let the router read what is left, or force it and lose them.';
    END IF;
    -- Triggers are meant to go. What else would go with it: views, defaults, functions with SQL bodies.
    SELECT pg_catalog.string_agg(DISTINCT pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid), ', ') INTO dependents
      FROM pg_catalog.pg_depend AS d
     WHERE d.refobjid IN (SELECT oid FROM pg_catalog.pg_class WHERE relnamespace = 'wamp'::regnamespace
                          UNION ALL SELECT oid FROM pg_catalog.pg_proc WHERE pronamespace = 'wamp'::regnamespace
                          UNION ALL SELECT oid FROM pg_catalog.pg_type WHERE typnamespace = 'wamp'::regnamespace)
       AND d.deptype = 'n'
       AND d.classid NOT IN ('pg_trigger'::regclass, 'pg_event_trigger'::regclass)
       AND (pg_catalog.pg_identify_object(d.classid, d.objid, d.objsubid)).identity !~ '^(wamp\.|[^ ]+ (on|for) (table |view |column |function )?wamp\.|"_RETURN" on wamp\.)'
       AND coalesce((pg_catalog.pg_identify_object(d.classid, d.objid, d.objsubid)).schema, '') NOT IN ('wamp', 'crossbar', 'pg_toast');
    IF dependents IS NOT NULL THEN
        RAISE EXCEPTION 'other objects are built on the schema wamp: %', dependents
            USING ERRCODE = 'dependent_objects_still_exist', HINT = 'Drop or change them, or force it and lose them.';
    END IF;
END
$guard$;
