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

-- Says why `wamp.enqueue` has written nothing.
CREATE OR REPLACE FUNCTION wamp.refuse(kind text, uri text, args jsonb, kwargs jsonb, options jsonb, action text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    size bigint := octet_length(uri) + coalesce(octet_length(args::text), 0) + coalesce(octet_length(kwargs::text), 0)
                   + coalesce(octet_length(options::text), 0);
    size_max integer;
BEGIN
    PERFORM wamp.require_uri(uri, 'exact'), wamp.require_payload(args, kwargs);
    IF action IS NOT NULL THEN
        PERFORM wamp.require(action, uri);
    END IF;
    SELECT event_bytes_max INTO size_max FROM wamp.setting;
    IF size > size_max THEN
        RAISE EXCEPTION 'this % has % bytes, and at most % are allowed', kind, size, size_max
            USING ERRCODE = 'program_limit_exceeded',
                  HINT = 'Publish where the rest can be fetched, or raise event_bytes_max in wamp.setting.';
    END IF;
    -- Somebody has changed the rules or the setting since.
    RAISE EXCEPTION 'this % was not allowed a moment ago', kind USING ERRCODE = 'insufficient_privilege', HINT = 'Try again.';
END
$$;

-- Writes a row of the outbox, if the rules let this user do `action` to it; NULL is for what was allowed before. Most of what a
-- publication costs is that the server begins to evaluate one more expression or statement, in every transaction anew: so all
-- that is to be checked is the condition of the one INSERT, and what is wrong is looked for only when there is something.
--
-- The order matters: first this transaction gets its number (the condition is evaluated before the row), then the row its id,
-- and last the flag is read (drain.sql says why).
CREATE OR REPLACE FUNCTION wamp.enqueue(kind text, uri text, args jsonb, kwargs jsonb, options jsonb, action text DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    number bigint;
BEGIN
    INSERT INTO wamp.outbox (kind, uri, args, kwargs, options, bytes, session, depth, db_user, published_at)
    SELECT kind, uri, content.args::json, content.kwargs::json, content.options::json, content.bytes,
           nullif(current_setting('wamp.session', true), '')::bigint,
           CASE WHEN current_setting('wamp.details', true) <> ''
                 AND jsonb_typeof(current_setting('wamp.details', true)::jsonb -> 'depth') = 'number'
                THEN (current_setting('wamp.details', true)::jsonb ->> 'depth')::integer ELSE 0 END,
           session_user, clock_timestamp()
      -- Each is written out once: OFFSET 0 keeps the planner from putting the expressions where they are used.
      FROM (SELECT texts.*, octet_length(uri) + coalesce(octet_length(texts.args), 0) + coalesce(octet_length(texts.kwargs), 0)
                            + coalesce(octet_length(texts.options), 0) AS bytes
              FROM (SELECT args::text AS args, kwargs::text AS kwargs, options::text AS options OFFSET 0) AS texts
            OFFSET 0) AS content
     WHERE pg_current_xact_id() IS NOT NULL
       AND wamp.is_uri(uri)
       AND (args IS NULL OR jsonb_typeof(args) = 'array') AND (kwargs IS NULL OR jsonb_typeof(kwargs) = 'object')
       AND (content.bytes <= 4096 OR content.bytes <= (SELECT event_bytes_max FROM wamp.setting))
       -- As wamp.may says.
       AND (action IS NULL
            OR EXISTS (
                SELECT FROM wamp.rule
                 WHERE rule.action = enqueue.action
                   AND CASE rule.match WHEN 'exact' THEN rule.uri = enqueue.uri ELSE starts_with(enqueue.uri, rule.uri) END
                   AND (rule.grantee = 0 OR pg_has_role(session_user, rule.grantee, 'USAGE')))
            OR pg_has_role(session_user, current_user, 'USAGE'))
    RETURNING id INTO number;
    IF number IS NULL THEN
        -- The log has taken it (log.sql), or it is refused.
        SELECT substr(current_setting('wamp.logged', true), length(setting.log_prefix) + 2)::bigint INTO number
          FROM wamp.setting WHERE starts_with(current_setting('wamp.logged', true), setting.log_prefix || ' ');
        IF number IS NULL THEN
            PERFORM wamp.refuse(kind, uri, args, kwargs, options, action);
        END IF;
        PERFORM set_config('wamp.logged', '', true);
        RETURN number;
    END IF;
    -- As `SELECT last_value FROM wamp.asleep` would, but it is no statement: NULL before it was ever set.
    IF pg_sequence_last_value('wamp.asleep') = 1 THEN
        PERFORM pg_notify('wamp', '');
    END IF;
    RETURN number;
END
$$;

-- Publishes an event when this transaction commits, and not if it or a savepoint around it is rolled back. Gives the number
-- by which wamp.publication knows it; its position (`_event_id`) comes later.
CREATE OR REPLACE FUNCTION wamp.publish(topic text, args jsonb DEFAULT NULL, kwargs jsonb DEFAULT NULL, options jsonb DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF options IS NOT NULL THEN
        PERFORM wamp.require_options(options);
    END IF;
    RETURN wamp.enqueue('event', topic, args, kwargs, options, 'publish');
END
$$;
