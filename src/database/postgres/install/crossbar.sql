-- The names of Crossbar's PostgreSQL publisher of 2015, for those who have them in their statements.
DO $facade$
BEGIN
    IF pg_catalog.to_regnamespace('crossbar') IS NULL THEN
        CREATE SCHEMA crossbar;
        COMMENT ON SCHEMA crossbar IS 'Crosspoint: old names for what is in the schema wamp';
    ELSIF pg_catalog.obj_description(pg_catalog.to_regnamespace('crossbar'), 'pg_namespace')
          IS DISTINCT FROM 'Crosspoint: old names for what is in the schema wamp' THEN
        RAISE EXCEPTION 'this database has a schema "crossbar" that is not Crosspoint''s'
            USING ERRCODE = 'duplicate_schema', HINT = 'Install without it, or rename that one.';
    END IF;
END
$facade$;

-- With the rights of its caller: wamp.publish asks the rules.
CREATE OR REPLACE FUNCTION crossbar.publish(topic text, args jsonb DEFAULT NULL, kwargs jsonb DEFAULT NULL, options jsonb DEFAULT NULL, autonomous boolean DEFAULT false)
RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF autonomous THEN
        RAISE EXCEPTION 'autonomous publishing is not supported' USING ERRCODE = 'feature_not_supported',
            HINT = 'Events leave with the transaction; publish on a connection of its own what must outlive a rollback.';
    END IF;
    RETURN wamp.publish(topic, args, kwargs, options);
END
$$;

REVOKE ALL ON FUNCTION crossbar.publish(text, jsonb, jsonb, jsonb, boolean) FROM PUBLIC;
GRANT USAGE ON SCHEMA crossbar TO PUBLIC;
GRANT EXECUTE ON FUNCTION crossbar.publish(text, jsonb, jsonb, jsonb, boolean) TO PUBLIC;
