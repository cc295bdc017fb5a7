-- Who may do what. `session_user` decides, the role that logged in: SET ROLE, and functions that run as their owner, change
-- `current_user` but never this.
--
-- Here and below: every SECURITY DEFINER function has its search_path pinned, and calls nothing that a user can define.

-- What is wrong with a URI is said here and not when it is dispatched, where nobody could answer for it any more. White
-- space beyond ASCII is left to the router: which characters it is depends on the locale of the database.
CREATE OR REPLACE FUNCTION wamp.is_uri(uri text) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT uri ~ '^[^\s.#]+(\.[^\s.#]+)*$' AND octet_length(uri) <= 1024 AND length(uri) - length(replace(uri, '.', '')) <= 63
       AND uri <> 'wamp' AND NOT starts_with(uri, 'wamp.')
$$;

-- The same, and what is wrong; patterns, too.
CREATE OR REPLACE FUNCTION wamp.require_uri(uri text, match text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF uri IS NULL THEN
        RAISE EXCEPTION 'the URI is null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF match IS NULL OR match NOT IN ('exact', 'prefix', 'wildcard') THEN
        RAISE EXCEPTION 'match is %, not exact, prefix or wildcard', coalesce(quote_literal(match), 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF match = 'exact' AND uri !~ '^[^\s.#]+(\.[^\s.#]+)*$' OR match <> 'exact' AND uri ~ '[\s#]'
       OR octet_length(uri) > 1024 OR length(uri) - length(replace(uri, '.', '')) > 63 THEN
        RAISE EXCEPTION '% is not a URI', quote_literal(left(uri, 200))
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Components with dots between them, none empty, no white space and no #; at most 64 of them and 1024 bytes.';
    END IF;
    IF uri = 'wamp' OR starts_with(uri, 'wamp.') THEN
        RAISE EXCEPTION '% begins with wamp, which is the protocol''s own', quote_literal(left(uri, 200))
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
END
$$;

-- A pattern is allowed if all that it can match is allowed: by a rule for a prefix of what it says before its first wildcard.
CREATE OR REPLACE FUNCTION wamp.may(action text, uri text, match text DEFAULT 'exact') RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    literal text := CASE WHEN match <> 'wildcard' THEN uri
                         WHEN starts_with(uri, '.') THEN ''
                         WHEN strpos(uri, '..') > 0 THEN left(uri, strpos(uri, '..'))
                         ELSE uri END;
BEGIN
    RETURN EXISTS (
        SELECT FROM wamp.rule
         WHERE rule.action = may.action
           AND CASE rule.match WHEN 'exact' THEN may.match = 'exact' AND rule.uri = may.uri
                               ELSE starts_with(literal, rule.uri) END
           AND (rule.grantee = 0 OR pg_has_role(session_user, rule.grantee, 'USAGE'))
    -- The owner could give itself any rule; here `current_user` is the owner.
    ) OR pg_has_role(session_user, current_user, 'USAGE');
END
$$;

CREATE OR REPLACE FUNCTION wamp.require(action text, uri text, match text DEFAULT 'exact') RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT wamp.may(action, uri, match) THEN
        RAISE EXCEPTION 'the database user % may not % %', quote_ident(session_user), action, quote_literal(uri)
            USING ERRCODE = 'insufficient_privilege',
                  HINT = format('The owner of the schema can allow it: SELECT wamp.allow(%L, %L, %L, %L);',
                                session_user, action, uri, CASE match WHEN 'exact' THEN match ELSE 'prefix' END);
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION wamp.grantee(name text) RETURNS oid
LANGUAGE plpgsql STABLE AS $$
DECLARE
    found_role oid;
BEGIN
    IF lower(name) = 'public' THEN
        RETURN 0;
    END IF;
    SELECT oid INTO found_role FROM pg_catalog.pg_roles WHERE rolname = name;
    IF found_role IS NULL THEN
        RAISE EXCEPTION 'there is no role %', coalesce(quote_literal(name), 'null') USING ERRCODE = 'undefined_object',
            HINT = 'Give the name as it is in pg_roles, without quotes; public is everybody.';
    END IF;
    RETURN found_role;
END
$$;

-- For the owner: lets a role, its members, or everybody ('public') do something.
CREATE OR REPLACE FUNCTION wamp.allow(grantee text, action text, uri text, match text DEFAULT 'exact') RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF uri <> '' OR match <> 'prefix' THEN
        PERFORM wamp.require_uri(uri, match);
    END IF;
    INSERT INTO wamp.rule VALUES (wamp.grantee(grantee), action, uri, match) ON CONFLICT DO NOTHING;
END
$$;

-- For the owner: takes a rule back, and says whether there was one.
CREATE OR REPLACE FUNCTION wamp.disallow(grantee text, action text, uri text, match text DEFAULT 'exact') RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM wamp.rule
     WHERE rule.grantee = wamp.grantee(disallow.grantee) AND rule.action = disallow.action
       AND rule.uri = disallow.uri AND rule.match = disallow.match;
    RETURN FOUND;
END
$$;
