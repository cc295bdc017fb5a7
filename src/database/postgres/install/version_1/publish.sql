-- Publishing, errors, and who is calling.

-- The caller's settings are text that any session can write; on a connection of the router's pool they are the router's.
CREATE OR REPLACE FUNCTION wamp.realm() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT nullif(current_setting('wamp.realm', true), '')
$$;
CREATE OR REPLACE FUNCTION wamp.session() RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT nullif(current_setting('wamp.session', true), '')::bigint
$$;
CREATE OR REPLACE FUNCTION wamp.authid() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT nullif(current_setting('wamp.authid', true), '')
$$;
CREATE OR REPLACE FUNCTION wamp.authrole() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT nullif(current_setting('wamp.authrole', true), '')
$$;
CREATE OR REPLACE FUNCTION wamp.details() RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT nullif(current_setting('wamp.details', true), '')::jsonb
$$;

-- Ends the call with an ERROR of this URI. SQLSTATE WA000 is the router's sign.
CREATE OR REPLACE FUNCTION wamp.error(uri text, message text DEFAULT NULL, args jsonb DEFAULT NULL, kwargs jsonb DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF uri IS NULL OR uri !~ '^[^\s.#]+(\.[^\s.#]+)*$' OR octet_length(uri) > 1024 THEN
        RAISE EXCEPTION '% is not a URI of an error', coalesce(quote_literal(left(uri, 200)), 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'WA000', MESSAGE = coalesce(message, uri), HINT = uri,
        DETAIL = jsonb_build_object('args', coalesce(args, jsonb_build_array(coalesce(message, uri))),
                                    'kwargs', coalesce(kwargs, '{}'))::text;
END
$$;

-- A misspelt `exclude` would show an event to those who must not see it, so what is not known is refused.
CREATE OR REPLACE FUNCTION wamp.require_options(options jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    name text;
    value jsonb;
BEGIN
    IF jsonb_typeof(options) <> 'object' THEN
        RAISE EXCEPTION 'options are of type %, not object', jsonb_typeof(options)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR name, value IN SELECT * FROM jsonb_each(options) LOOP
        IF name IN ('exclude', 'eligible') THEN
            IF jsonb_typeof(value) <> 'array' OR EXISTS (
                SELECT FROM jsonb_array_elements(value) AS element
                 WHERE CASE WHEN jsonb_typeof(element) = 'number'
                            THEN element::numeric NOT BETWEEN 1 AND 9007199254740992 OR element::numeric % 1 <> 0
                            ELSE true END) THEN
                RAISE EXCEPTION 'option % is not a list of session ids', name USING ERRCODE = 'invalid_parameter_value';
            END IF;
        ELSIF name IN ('exclude_authid', 'exclude_authrole', 'eligible_authid', 'eligible_authrole') THEN
            IF jsonb_typeof(value) <> 'array' OR EXISTS (
                SELECT FROM jsonb_array_elements(value) AS element WHERE jsonb_typeof(element) <> 'string') THEN
                RAISE EXCEPTION 'option % is not a list of strings', name USING ERRCODE = 'invalid_parameter_value';
            END IF;
        ELSIF name IN ('acknowledge', 'exclude_me', 'retain', 'disclose_me') THEN
            IF jsonb_typeof(value) <> 'boolean' THEN
                RAISE EXCEPTION 'option % is not true or false', name USING ERRCODE = 'invalid_parameter_value';
            END IF;
        ELSE
            RAISE EXCEPTION 'there is no option %', quote_literal(name) USING ERRCODE = 'invalid_parameter_value',
                HINT = 'There are acknowledge, disclose_me, exclude_me, retain, exclude, exclude_authid, exclude_authrole, '
                       'eligible, eligible_authid and eligible_authrole.';
        END IF;
    END LOOP;
END
$$;

-- Writes a row of the outbox. The order matters: first this transaction gets its number, then the row its id, and last the flag
-- is read (drain.sql says why).
CREATE OR REPLACE FUNCTION wamp.enqueue(kind text, uri text, args jsonb, kwargs jsonb, options jsonb) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    transaction xid8 := pg_current_xact_id();
    size integer := octet_length(uri) + coalesce(octet_length(args::text), 0) + coalesce(octet_length(kwargs::text), 0)
                    + coalesce(octet_length(options::text), 0);
    size_max integer;
    details jsonb := nullif(current_setting('wamp.details', true), '');
    number bigint;
BEGIN
    IF size > 4096 THEN
        SELECT event_bytes_max INTO size_max FROM wamp.setting;
        IF size > size_max THEN
            RAISE EXCEPTION 'this % has % bytes, and at most % are allowed', kind, size, size_max
                USING ERRCODE = 'program_limit_exceeded',
                      HINT = 'Publish where the rest can be fetched, or raise event_bytes_max in wamp.setting.';
        END IF;
    END IF;
    INSERT INTO wamp.outbox (kind, uri, args, kwargs, options, bytes, session, depth, db_user, published_at)
    VALUES (kind, uri, args::text::json, kwargs::text::json, options::text::json, size,
            nullif(current_setting('wamp.session', true), '')::bigint,
            CASE WHEN jsonb_typeof(details -> 'depth') = 'number' THEN (details ->> 'depth')::integer ELSE 0 END,
            session_user, clock_timestamp())
    RETURNING id INTO number;
    IF (SELECT last_value FROM wamp.asleep) = 1 THEN
        PERFORM pg_notify('wamp', '');
    END IF;
    RETURN number;
END
$$;

CREATE OR REPLACE FUNCTION wamp.require_payload(args jsonb, kwargs jsonb) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF jsonb_typeof(args) <> 'array' THEN
        RAISE EXCEPTION 'args are of type %, not array', jsonb_typeof(args) USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Put them into a list: jsonb_build_array(...).';
    END IF;
    IF jsonb_typeof(kwargs) <> 'object' THEN
        RAISE EXCEPTION 'kwargs are of type %, not object', jsonb_typeof(kwargs) USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Put them into an object: jsonb_build_object(''name'', value, ...).';
    END IF;
END
$$;

-- Publishes an event when this transaction commits, and not if it or a savepoint around it is rolled back. Gives the number
-- by which wamp.publication knows it; its position (`_event_id`) comes later.
CREATE OR REPLACE FUNCTION wamp.publish(topic text, args jsonb DEFAULT NULL, kwargs jsonb DEFAULT NULL, options jsonb DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM wamp.require_uri(topic, 'exact'), wamp.require_payload(args, kwargs), wamp.require('publish', topic);
    IF options IS NOT NULL THEN
        PERFORM wamp.require_options(options);
    END IF;
    RETURN wamp.enqueue('event', topic, args, kwargs, options);
END
$$;
