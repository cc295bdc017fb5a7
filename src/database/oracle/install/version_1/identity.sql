-- NEVER RUN AGAINST AN ORACLE SERVER BY US: see docs/oracle.md, and tell us what comes of it.
--
-- Who calls, as an application context: SYS_CONTEXT('WAMP_CTX', 'AUTHID') in any SQL, in policies too. Only the package can
-- set it, and only routers may execute that.
create or replace package wamp_ctx authid definer as
    procedure set(p_realm varchar2, p_session varchar2, p_authid varchar2, p_authrole varchar2, p_details varchar2);
    -- Nobody's call: procedures that get events and answers, which so many events led to.
    procedure inside(p_realm varchar2, p_depth number);
end;
/
create or replace package body wamp_ctx as
    procedure put(p_name varchar2, p_value varchar2) is
    begin
        dbms_session.set_context('WAMP_CTX', p_name, p_value);
    end;

    procedure set(p_realm varchar2, p_session varchar2, p_authid varchar2, p_authrole varchar2, p_details varchar2) is
    begin
        put('REALM', p_realm);
        put('SESSION', p_session);
        put('AUTHID', p_authid);
        put('AUTHROLE', p_authrole);
        -- A value of a context has room for no more.
        put('DETAILS', case when lengthb(p_details) <= 4000 then p_details end);
        put('DEPTH', null);
        -- What packages remember of one call is not for the next: it is forgotten when this call is over.
        dbms_session.modify_package_state(dbms_session.reinitialize);
    end;

    procedure inside(p_realm varchar2, p_depth number) is
    begin
        wamp_ctx.set(p_realm, null, null, null, null);
        put('DEPTH', to_char(p_depth));
    end;
end;
/
-- Wants the privilege CREATE ANY CONTEXT.
begin
    execute immediate 'create or replace context wamp_ctx using '
        || dbms_assert.enquote_name(sys_context('USERENV', 'CURRENT_SCHEMA'), false) || '.wamp_ctx';
end;
/
