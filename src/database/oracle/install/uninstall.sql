-- NEVER RUN AGAINST AN ORACLE SERVER BY US: see docs/oracle.md, and tell us what comes of it.
--
-- Removes what was installed. Triggers that `wamp_watch` made belong to who watches, and fail from here on: drop them first.
declare
    procedure remove(p_sql varchar2) is
        is_missing exception;
        is_no_object exception;
        pragma exception_init(is_missing, -942);
        pragma exception_init(is_no_object, -4043);
    begin
        execute immediate p_sql;
    exception
        when is_missing or is_no_object then null;
    end;
begin
    remove('drop package crossbar');
    remove('drop type crossbar_sessionids');
    remove('drop type crossbar_authkeys');
    remove('drop procedure wamp_watch');
    remove('drop function wamp_watch_sql');
    remove('drop package wamp_drain');
    remove('drop package wamp');
    remove('drop context wamp_ctx');
    remove('drop package wamp_ctx');
    remove('drop view wamp_publication');
    remove('drop table wamp_dead_letter purge');
    remove('drop table wamp_call purge');
    remove('drop table wamp_subscription purge');
    remove('drop table wamp_registration purge');
    remove('drop table wamp_rule purge');
    remove('drop table wamp_wake purge');
    remove('drop table wamp_state purge');
    remove('drop table wamp_outbox purge');
    remove('drop table wamp_version purge');
end;
/
