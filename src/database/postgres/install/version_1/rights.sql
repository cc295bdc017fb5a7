-- Who may execute what. Everything is taken from PUBLIC, and given back by name.
REVOKE ALL ON SCHEMA wamp FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA wamp FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA wamp FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA wamp FROM PUBLIC;

GRANT USAGE ON SCHEMA wamp TO PUBLIC;
GRANT SELECT ON wamp.publication TO PUBLIC;
-- Each of these asks the rules, or tells its caller only of itself.
GRANT EXECUTE ON FUNCTION
    wamp.publish(text, jsonb, jsonb, jsonb), wamp.error(text, text, jsonb, jsonb), wamp.may(text, text, text),
    wamp.notify_row(), wamp.watch(regclass, text, text[]), wamp.unwatch(regclass, text),
    wamp.record_watch(regclass, text, text[]), wamp.forget_watch(regclass, text), wamp.trigger_name(text),
    wamp.subscribe(text, regprocedure, text), wamp.unsubscribe(text, regprocedure, text),
    wamp.register(text, text, jsonb), wamp.unregister(text), wamp.reload(),
    wamp.call_async(text, jsonb, jsonb, regprocedure, integer), wamp.call_result(bigint),
    wamp.position(), wamp.realm(), wamp.session(), wamp.authid(), wamp.authrole(), wamp.details()
TO PUBLIC;
GRANT EXECUTE ON PROCEDURE wamp.call_wait(text, jsonb, jsonb, jsonb, integer) TO PUBLIC;

-- For the owner: lets a router's role drain. What it may is listed here and nowhere else.
CREATE OR REPLACE FUNCTION wamp.trust_router(role text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found_role oid := wamp.grantee(role);
BEGIN
    IF found_role = 0 THEN
        RAISE EXCEPTION 'public cannot be a router' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO wamp.router VALUES (found_role) ON CONFLICT DO NOTHING;
    EXECUTE format('GRANT SELECT ON wamp.version, wamp.registration, wamp.subscription TO %I', role);
    EXECUTE format(
        'GRANT EXECUTE ON FUNCTION wamp.lead(text), wamp.resign(bigint), wamp.awake(bigint), wamp.doze(bigint),
             wamp.horizon(bigint), wamp.settled(xid8), wamp.claim(bigint, integer, bigint, integer),
             wamp.unsent(bigint, bigint, integer, bigint), wamp.mark(bigint, bigint, bigint[], bigint[], text[]),
             wamp.set_aside(bigint, bigint[], text), wamp.replay(bigint, bigint, text, text, integer, bigint),
             wamp.progress(), wamp.in_window(bigint), wamp.log(), wamp.feed(bigint, json), wamp.close_log(bigint),
             wamp.prune(bigint, interval, bigint, integer, interval, interval), wamp.backlog(),
             wamp.open_calls(bigint, bigint[], integer, bigint), wamp.finish_call(bigint, jsonb, jsonb, text), wamp.bury(text, text, json, json, json, text, integer) TO %I',
        role);
END
$$;

-- For the owner: takes that back, and says whether it was so.
CREATE OR REPLACE FUNCTION wamp.distrust_router(role text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('REVOKE ALL ON ALL ROUTINES IN SCHEMA wamp FROM %I', role);
    EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA wamp FROM %I', role);
    DELETE FROM wamp.router WHERE router.role = wamp.grantee(distrust_router.role);
    RETURN FOUND;
END
$$;

REVOKE ALL ON FUNCTION wamp.trust_router(text), wamp.distrust_router(text) FROM PUBLIC;
