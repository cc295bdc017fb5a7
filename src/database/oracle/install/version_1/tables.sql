-- NEVER RUN AGAINST AN ORACLE SERVER BY US: see docs/oracle.md, and tell us what comes of it.
--
-- What is kept, in the schema of who installs. Nobody but the owner reads or writes a table; what others may do, packages do
-- for them. Statements end with a line that is a slash alone, and each may be run once more.
declare
    -- What is there already stays as it is.
    procedure make(p_sql varchar2) is
        is_there exception;
        pragma exception_init(is_there, -955);
    begin
        execute immediate p_sql;
    exception
        when is_there then null;
    end;
begin
    -- `id` is drawn when a row is written, so it is not the order in which rows become visible. That is `position`: given by
    -- the one drainer, without a gap, and never changed. `error`: why the drainer has set a row aside. `receivers`: how many sessions got it, where
    -- that is counted. `kind` is event or call,
    -- `depth` how many events led to it inside.
    make('create table wamp_outbox (
        id           number generated always as identity primary key,
        kind         varchar2(5) not null,
        topic        varchar2(1024) not null,
        args         clob,
        kwargs       clob,
        options      clob,
        session_id   varchar2(20),
        depth        number not null,
        db_user      varchar2(128) not null,
        published_at timestamp with time zone not null,
        position     number,
        sent_at      timestamp with time zone,
        receivers    number,
        error        varchar2(2000))');
    -- Rows that wait are few: nulls are not in an index.
    make('create index wamp_outbox_waiting on wamp_outbox (case when position is null and error is null then id end)');
    make('create unique index wamp_outbox_position on wamp_outbox (position)');
    make('create index wamp_outbox_aside on wamp_outbox (case when error is not null then id end)');
    -- How far the drainer is: positions up to `pruned` are gone, up to `sent` sent, up to `last` assigned. `epoch` counts the routers that have
    -- led; what an earlier one still wants is refused. A router leads until `led_until`, and says so again before that.
    make('create table wamp_state (
        one       number(1) primary key check (one = 1),
        last      number not null,
        sent      number not null,
        pruned    number not null,
        epoch     number not null,
        leader    varchar2(200),
        led_until timestamp with time zone not null)');
    -- 1 while the drainer sleeps and is to be woken. A row of its own, so that who publishes waits for nobody who drains. (A
    -- global application context would be read outside of every snapshot, but not by sessions with a client identifier, and
    -- not on another instance of a cluster.)
    make('create table wamp_wake (one number(1) primary key check (one = 1), asleep number(1) not null)');
    -- Who may do what: what no row allows is denied. PUBLIC is everybody.
    make('create table wamp_rule (
        grantee varchar2(128) not null,
        action  varchar2(10) not null check (action in (''publish'', ''subscribe'', ''register'', ''call'')),
        uri     varchar2(1024) not null,
        match   varchar2(6) not null check (match in (''exact'', ''prefix'')),
        primary key (grantee, action, uri, match))');
    make('create table wamp_registration (
        id             number generated always as identity primary key,
        uri            varchar2(1024) not null unique,
        schema_name    varchar2(128) not null,
        package_name   varchar2(128),
        procedure_name varchar2(128) not null,
        registered_by  varchar2(128) not null)');
    make('create table wamp_subscription (
        id             number generated always as identity primary key,
        topic          varchar2(1024) not null,
        match          varchar2(8) not null check (match in (''exact'', ''prefix'', ''wildcard'')),
        schema_name    varchar2(128) not null,
        package_name   varchar2(128),
        procedure_name varchar2(128) not null,
        subscribed_by  varchar2(128) not null,
        unique (topic, match, schema_name, package_name, procedure_name))');
    -- Calls that statements make: `id` is that of the row in the outbox, which only says that there is one. `args` and `kwargs`
    -- are there until it is answered. So long after `called_at` nobody waits any more, and it is not made; null is as long as
    -- the router gives it. `on_procedure` wants the answer.
    make('create table wamp_call (
        id            number primary key,
        uri           varchar2(1024) not null,
        args          clob,
        kwargs        clob,
        on_schema     varchar2(128),
        on_package    varchar2(128),
        on_procedure  varchar2(128),
        timeout_ms    number check (timeout_ms > 0),
        depth         number not null,
        db_user       varchar2(128) not null,
        called_at     timestamp with time zone not null,
        finished_at   timestamp with time zone,
        answer_error  varchar2(1024),
        answer_args   clob,
        answer_kwargs clob)');
    make('create index wamp_call_open on wamp_call (case when finished_at is null then id end)');
    -- Events and answers whose procedure failed as often as it was tried.
    make('create table wamp_dead_letter (
        id             number generated always as identity primary key,
        procedure_name varchar2(400) not null,
        topic          varchar2(1024) not null,
        args           clob,
        kwargs         clob,
        details        clob,
        error          varchar2(2000) not null,
        attempts       number not null,
        buried_at      timestamp with time zone not null)');
    make('create table wamp_version (version number primary key, installed_at timestamp with time zone not null)');
end;
/
insert into wamp_state (one, last, sent, pruned, epoch, led_until)
select 1, 0, 0, 0, 0, systimestamp from dual where not exists (select 1 from wamp_state)
/
-- What became of one's own publications, for those who are granted READ on it.
create or replace view wamp_publication as
select id, position, topic, args, kwargs, options, published_at, sent_at, receivers, error
  from wamp_outbox
 where kind = 'event' and db_user = sys_context('USERENV', 'SESSION_USER')
/
insert into wamp_wake (one, asleep) select 1, 0 from dual where not exists (select 1 from wamp_wake)
/
commit
/
