-- Functions of the database as procedures of the realm and as subscribers, and calls out of the database.
--
-- The router runs these functions on its own connections, so whoever may subscribe, register or name an `on_result` runs
-- statements with the router's rights. Nobody may by default, and the function must be one that they may execute.

CREATE OR REPLACE FUNCTION wamp.require_function(function oid) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT has_function_privilege(session_user, function, 'EXECUTE') THEN
        RAISE EXCEPTION 'the database user % may not execute %', quote_ident(session_user), function::regprocedure
            USING ERRCODE = 'insufficient_privilege';
    END IF;
END
$$;

-- Functions that take an event or a result take (args jsonb [, kwargs jsonb [, more jsonb ...]]).
CREATE OR REPLACE FUNCTION wamp.require_jsonb_function(function regprocedure, parameters_max integer) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    types oid[];
BEGIN
    SELECT proargtypes::oid[] INTO types FROM pg_proc WHERE oid = function AND prokind = 'f';
    IF types IS NULL OR cardinality(types) NOT BETWEEN 1 AND parameters_max OR 'jsonb'::regtype <> ALL (types) THEN
        RAISE EXCEPTION '% does not take 1 to % parameters of type jsonb', coalesce(function::text, 'null'), parameters_max
            USING ERRCODE = 'invalid_function_definition';
    END IF;
    PERFORM wamp.require_function(function);
END
$$;

-- An event of the topic or pattern calls `fn(args [, kwargs [, details]])`. Gives the number of the subscription.
CREATE OR REPLACE FUNCTION wamp.subscribe(topic text, fn regprocedure, match text DEFAULT 'exact') RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    number bigint;
BEGIN
    PERFORM wamp.require_uri(topic, match), wamp.require('subscribe', topic, match), wamp.require_jsonb_function(fn, 3);
    INSERT INTO wamp.subscription (topic, match, function, subscribed_by) VALUES (topic, match, fn::text, session_user)
    ON CONFLICT ON CONSTRAINT subscription_topic_match_function_key DO NOTHING
    RETURNING id INTO number;
    IF number IS NULL THEN
        SELECT id INTO number FROM wamp.subscription
         WHERE subscription.topic = subscribe.topic AND subscription.match = subscribe.match AND function = fn::text;
    ELSE
        PERFORM pg_notify('wamp_schema', '');
    END IF;
    RETURN number;
END
$$;

-- For who subscribed, and for the owner. Says whether there was such a subscription.
CREATE OR REPLACE FUNCTION wamp.unsubscribe(topic text, fn regprocedure, match text DEFAULT 'exact') RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    author text;
BEGIN
    SELECT subscribed_by INTO author FROM wamp.subscription
     WHERE subscription.topic = unsubscribe.topic AND subscription.match = unsubscribe.match AND function = fn::text;
    IF author IS NULL THEN
        RETURN false;
    END IF;
    PERFORM wamp.require_author(author);
    DELETE FROM wamp.subscription
     WHERE subscription.topic = unsubscribe.topic AND subscription.match = unsubscribe.match AND function = fn::text;
    PERFORM pg_notify('wamp_schema', '');
    RETURN true;
END
$$;

CREATE OR REPLACE FUNCTION wamp.require_author(author text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    -- Compared by name: the role may have been dropped since.
    IF author <> session_user AND NOT pg_has_role(session_user, current_user, 'USAGE') THEN
        RAISE EXCEPTION 'this is of the database user %', quote_ident(author) USING ERRCODE = 'insufficient_privilege',
            HINT = 'That user can change it, or the owner of the schema wamp.';
    END IF;
END
$$;

-- Makes all functions of this name a procedure of the realm: 'schema.name', or one alone with 'schema.name(types)'. Once
-- more: replaces.
CREATE OR REPLACE FUNCTION wamp.register(uri text, fn text, options jsonb DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    author text;
    schema_and_name text[];
    candidates oid[];
    name text;
BEGIN
    PERFORM wamp.require_uri(uri, 'exact'), wamp.require('register', uri);
    IF jsonb_typeof(options) <> 'object' THEN
        RAISE EXCEPTION 'options are of type %, not object', jsonb_typeof(options) USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- Names are kept as the server writes them, so that nothing that follows has to take them apart again.
    IF strpos(fn, '(') > 0 THEN
        candidates := array_remove(ARRAY[to_regprocedure(fn)::oid], NULL);
        name := to_regprocedure(fn)::text;
    ELSE
        schema_and_name := parse_ident(fn);
        IF cardinality(schema_and_name) IS DISTINCT FROM 2 THEN
            RAISE EXCEPTION '% has no schema', coalesce(quote_literal(fn), 'null') USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Write schema.name, or schema.name(types) for one of several.';
        END IF;
        SELECT array_agg(pg_proc.oid) INTO candidates
          FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
         WHERE nspname = schema_and_name[1] AND proname = schema_and_name[2] AND prokind IN ('f', 'p');
        name := format('%I.%I', schema_and_name[1], schema_and_name[2]);
    END IF;
    IF coalesce(cardinality(candidates), 0) = 0 THEN
        RAISE EXCEPTION 'there is no function %', quote_literal(fn) USING ERRCODE = 'undefined_function';
    END IF;
    PERFORM wamp.require_function(candidate) FROM unnest(candidates) AS candidate;
    SELECT registered_by INTO author FROM wamp.registration WHERE registration.uri = register.uri FOR UPDATE;
    IF author IS NOT NULL THEN
        PERFORM wamp.require_author(author);
    END IF;
    INSERT INTO wamp.registration (uri, function, options, registered_by)
    VALUES (uri, name, coalesce(options, '{}'), session_user)
    ON CONFLICT ON CONSTRAINT registration_pkey DO UPDATE
       SET function = excluded.function, options = excluded.options, registered_by = excluded.registered_by,
           registered_at = clock_timestamp()
     -- Somebody else's that was made since the look above stays.
     WHERE registration.registered_by = coalesce(author, session_user);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'another user has registered % at this moment', quote_literal(uri)
            USING ERRCODE = 'unique_violation';
    END IF;
    PERFORM pg_notify('wamp_schema', '');
END
$$;

-- For who registered, and for the owner. Says whether there was such a registration.
CREATE OR REPLACE FUNCTION wamp.unregister(uri text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    author text;
BEGIN
    SELECT registered_by INTO author FROM wamp.registration WHERE registration.uri = unregister.uri;
    IF author IS NULL THEN
        RETURN false;
    END IF;
    PERFORM wamp.require_author(author);
    DELETE FROM wamp.registration WHERE registration.uri = unregister.uri;
    PERFORM pg_notify('wamp_schema', '');
    RETURN true;
END
$$;

-- Has the router read functions, registrations and subscriptions again.
CREATE OR REPLACE FUNCTION wamp.reload() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_notify('wamp_schema', '')
$$;

-- Calls a procedure once this transaction has committed. Gives the number of the call. The answer is kept for a day and, if
-- there is one, given to `on_result(id, args, kwargs, error)`, all of type jsonb. After `timeout_ms` the answer is an error,
-- and if no router has made the call until then none will; without it the call waits for a router.
CREATE OR REPLACE FUNCTION wamp.call_async(proc text, args jsonb DEFAULT NULL, kwargs jsonb DEFAULT NULL, on_result regprocedure DEFAULT NULL, timeout_ms integer DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    number bigint;
    size integer := octet_length(proc) + coalesce(octet_length(args::text), 0) + coalesce(octet_length(kwargs::text), 0);
BEGIN
    IF timeout_ms < 1 THEN
        RAISE EXCEPTION 'a call cannot be answered within % ms', timeout_ms USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM wamp.require_uri(proc, 'exact'), wamp.require_payload(args, kwargs), wamp.require('call', proc);
    IF on_result IS NOT NULL THEN
        -- It runs with the router's rights, as what is registered does.
        PERFORM wamp.require('register', proc), wamp.require_jsonb_function(on_result, 4);
    END IF;
    IF size > (SELECT event_bytes_max FROM wamp.setting) THEN
        PERFORM wamp.refuse('call', proc, args, kwargs, NULL, NULL);
    END IF;
    number := wamp.enqueue('call', proc, NULL, NULL, NULL);
    INSERT INTO wamp.call (id, procedure, args, kwargs, bytes, on_result, timeout_ms, depth, db_user, called_at)
    VALUES (number, proc, args::text::json, kwargs::text::json, size, on_result::text, timeout_ms,
            (SELECT outbox.depth FROM wamp.outbox WHERE outbox.id = number), session_user, clock_timestamp());
    RETURN number;
END
$$;

-- The answer to one's own call: null while there is none, {"args", "kwargs"}, or {"error", "args", "kwargs"}.
CREATE OR REPLACE FUNCTION wamp.call_result(id bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    answer jsonb;
    author text;
BEGIN
    SELECT outcome, db_user INTO answer, author FROM wamp.call WHERE call.id = call_result.id;
    IF author IS NULL THEN
        RAISE EXCEPTION 'there is no call %', coalesce(id::text, 'null') USING ERRCODE = 'no_data_found',
            HINT = 'Answers are kept for a day.';
    END IF;
    PERFORM wamp.require_author(author);
    RETURN answer;
END
$$;

-- CALL wamp.call_wait(...): calls a procedure and waits for the answer. Commits what the session has done so far, because
-- nobody sees the call before; so it cannot stand in a transaction. It may neither be SECURITY DEFINER nor have its
-- search_path pinned, since both forbid COMMIT: hence every name and operator with its schema.
CREATE OR REPLACE PROCEDURE wamp.call_wait(proc text, args jsonb, kwargs jsonb, INOUT result jsonb DEFAULT NULL, timeout_ms integer DEFAULT 5000)
LANGUAGE plpgsql AS $$
DECLARE
    number bigint := wamp.call_async(proc, args, kwargs, NULL, timeout_ms);
    until timestamptz := pg_catalog.clock_timestamp()
                         OPERATOR(pg_catalog.+) (timeout_ms OPERATOR(pg_catalog.*) '1 millisecond'::pg_catalog.interval);
    pause double precision := 0.001;
BEGIN
    LOOP
        -- Each look needs a snapshot of its own, also under REPEATABLE READ.
        COMMIT;
        result := wamp.call_result(number);
        IF result IS NOT NULL THEN
            IF result OPERATOR(pg_catalog.?) 'error' THEN
                PERFORM wamp.error(result OPERATOR(pg_catalog.->>) 'error', NULL, result OPERATOR(pg_catalog.->) 'args',
                                   result OPERATOR(pg_catalog.->) 'kwargs');
            END IF;
            RETURN;
        END IF;
        IF pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>=) until THEN
            PERFORM wamp.error('wamp.error.timeout', pg_catalog.format('%s was not answered within %s ms', proc, timeout_ms));
        END IF;
        PERFORM pg_catalog.pg_sleep(pause);
        pause := LEAST(pause OPERATOR(pg_catalog.*) 2.0, 0.05);
    END LOOP;
END
$$;
