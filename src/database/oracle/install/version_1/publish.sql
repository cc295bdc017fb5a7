-- NEVER RUN AGAINST AN ORACLE SERVER BY US: see docs/oracle.md, and tell us what comes of it.
--
-- Publishing, errors, registering, and who calls. Events leave when the transaction commits, in the order of their positions;
-- what is rolled back was never published.
create or replace package wamp authid definer as
    -- Publishes; the number of the row. `p_args` is a list of JSON and `p_kwargs` an object, `p_options` as in PUBLISH.
    function publish(p_topic varchar2, p_args clob default null, p_kwargs clob default null,
                     p_options clob default null) return number;
    procedure publish(p_topic varchar2, p_args clob default null, p_kwargs clob default null,
                      p_options clob default null);
    -- The same of values that are JSON already.
    function publish(p_topic varchar2, p_args json_array_t, p_kwargs json_object_t default null,
                     p_options json_object_t default null) return number;
    procedure publish(p_topic varchar2, p_args json_array_t, p_kwargs json_object_t default null,
                      p_options json_object_t default null);
    -- Without a look at the JSON: the router looks, and sets a row aside that has none.
    function publish_raw(p_topic varchar2, p_args clob, p_kwargs clob default null, p_options clob default null)
        return number;

    -- Ends the call with an ERROR of this URI. All of it has room for 2,000 bytes.
    procedure error(p_uri varchar2, p_message varchar2 default null, p_args clob default null,
                    p_kwargs clob default null);

    -- Offers a function or procedure at a URI, beside what the configuration offers. The router's user must be able to
    -- execute it. Without a package it stands alone.
    function register(p_uri varchar2, p_schema varchar2, p_package varchar2, p_procedure varchar2) return number;
    procedure unregister(p_uri varchar2);

    -- Who may publish and register what; for the owner alone.
    procedure allow(p_grantee varchar2, p_action varchar2, p_uri varchar2, p_match varchar2 default 'exact');
    procedure disallow(p_grantee varchar2, p_action varchar2, p_uri varchar2, p_match varchar2 default 'exact');

    -- Whose call this is; null where it is nobody's.
    function realm return varchar2;
    function session_id return varchar2;
    function authid return varchar2;
    function authrole return varchar2;
    function details return varchar2;

    -- Fails unless who is logged in may publish there.
    procedure require_publish(p_topic varchar2);
    -- In whose schema these packages are.
    function schema_name return varchar2;
end;
/
create or replace package body wamp as
    function me return varchar2 is
    begin
        return sys_context('USERENV', 'SESSION_USER');
    end;

    function owner return varchar2 is
    begin
        -- In a package with definer's rights that is who owns it.
        return sys_context('USERENV', 'CURRENT_USER');
    end;

    procedure require_uri(p_uri varchar2) is
    begin
        if p_uri is null or lengthb(p_uri) > 1024 or not regexp_like(p_uri, '^[^[:space:].#]+(\.[^[:space:].#]+)*$') then
            raise_application_error(-20998, '"' || substr(p_uri, 1, 200) || '" is not a URI: components with dots '
                || 'between them, none empty, no white space and no #');
        end if;
        if p_uri = 'wamp' or p_uri like 'wamp.%' then
            raise_application_error(-20998, p_uri || ' begins with wamp, which is the protocol''s own');
        end if;
    end;

    procedure require(p_action varchar2, p_uri varchar2) is
        l_count number;
    begin
        if me = owner then
            return;
        end if;
        select count(*) into l_count from wamp_rule
         where action = p_action and grantee in (me, 'PUBLIC')
           and (match = 'exact' and uri = p_uri
                or match = 'prefix' and (uri = '*' or substr(p_uri, 1, length(uri)) = uri))
           and rownum = 1;
        if l_count = 0 then
            raise_application_error(-20998, 'the database user ' || me || ' may not ' || p_action || ' ' || p_uri);
        end if;
    end;

    -- Wakes the drainer, when this transaction commits. DBMS_ALERT makes transactions that signal wait for each other, so it is
    -- only asked while the drainer sleeps; where it may not be executed the drainer finds the row a second later.
    procedure wake is
        l_asleep number;
    begin
        select asleep into l_asleep from wamp_wake;
        if l_asleep = 1 then
            execute immediate 'begin sys.dbms_alert.signal(:1, null); end;' using substr('WAMP_' || owner, 1, 30);
        end if;
    exception
        when others then null;
    end;

    function enqueue(p_topic varchar2, p_args clob, p_kwargs clob, p_options clob) return number is
        l_id number;
    begin
        require_uri(p_topic);
        require('publish', p_topic);
        insert into wamp_outbox (topic, args, kwargs, options, session_id, db_user, published_at)
        values (p_topic, p_args, p_kwargs, p_options, sys_context('WAMP_CTX', 'SESSION'), me, systimestamp)
        returning id into l_id;
        wake;
        return l_id;
    end;

    function publish_raw(p_topic varchar2, p_args clob, p_kwargs clob default null, p_options clob default null)
        return number is
    begin
        return enqueue(p_topic, p_args, p_kwargs, p_options);
    end;

    -- What is no JSON is said here, and not when it is dispatched, where nobody could answer for it any more.
    function publish(p_topic varchar2, p_args clob default null, p_kwargs clob default null,
                     p_options clob default null) return number is
        l_args json_array_t;
        l_object json_object_t;
    begin
        if p_args is not null then
            l_args := json_array_t.parse(p_args);
        end if;
        if p_kwargs is not null then
            l_object := json_object_t.parse(p_kwargs);
        end if;
        if p_options is not null then
            l_object := json_object_t.parse(p_options);
        end if;
        return enqueue(p_topic, p_args, p_kwargs, p_options);
    end;

    procedure publish(p_topic varchar2, p_args clob default null, p_kwargs clob default null,
                      p_options clob default null) is
        l_id number := publish(p_topic, p_args, p_kwargs, p_options);
    begin
        null;
    end;

    function publish(p_topic varchar2, p_args json_array_t, p_kwargs json_object_t default null,
                     p_options json_object_t default null) return number is
        l_args clob;
        l_kwargs clob;
        l_options clob;
    begin
        if p_args is not null then
            l_args := p_args.to_clob;
        end if;
        if p_kwargs is not null then
            l_kwargs := p_kwargs.to_clob;
        end if;
        if p_options is not null then
            l_options := p_options.to_clob;
        end if;
        return enqueue(p_topic, l_args, l_kwargs, l_options);
    end;

    procedure publish(p_topic varchar2, p_args json_array_t, p_kwargs json_object_t default null,
                      p_options json_object_t default null) is
        l_id number := publish(p_topic, p_args, p_kwargs, p_options);
    begin
        null;
    end;

    procedure error(p_uri varchar2, p_message varchar2 default null, p_args clob default null,
                    p_kwargs clob default null) is
        l_error json_object_t := json_object_t();
    begin
        l_error.put('uri', p_uri);
        l_error.put('desc', coalesce(p_message, p_uri));
        if p_args is not null then
            l_error.put('args', json_array_t.parse(p_args));
        end if;
        if p_kwargs is not null then
            l_error.put('kwargs', json_object_t.parse(p_kwargs));
        end if;
        raise_application_error(-20999, l_error.to_string);
    end;

    function register(p_uri varchar2, p_schema varchar2, p_package varchar2, p_procedure varchar2) return number is
        l_id number;
    begin
        require_uri(p_uri);
        require('register', p_uri);
        update wamp_registration
           set schema_name = upper(p_schema), package_name = upper(p_package), procedure_name = upper(p_procedure)
         where uri = p_uri and registered_by = me
        returning id into l_id;
        if sql%rowcount = 0 then
            insert into wamp_registration (uri, schema_name, package_name, procedure_name, registered_by)
            values (p_uri, upper(p_schema), upper(p_package), upper(p_procedure), me)
            returning id into l_id;
        end if;
        return l_id;
    exception
        when dup_val_on_index then
            raise_application_error(-20998, p_uri || ' is registered by another user');
    end;

    procedure unregister(p_uri varchar2) is
    begin
        delete from wamp_registration where uri = p_uri and (registered_by = me or me = owner);
    end;

    procedure require_owner is
    begin
        if me <> owner then
            raise_application_error(-20998, 'only ' || owner || ' says who may do what');
        end if;
    end;

    procedure allow(p_grantee varchar2, p_action varchar2, p_uri varchar2, p_match varchar2 default 'exact') is
    begin
        require_owner;
        insert into wamp_rule (grantee, action, uri, match) values (upper(p_grantee), p_action, p_uri, p_match);
    exception
        when dup_val_on_index then null;
    end;

    procedure disallow(p_grantee varchar2, p_action varchar2, p_uri varchar2, p_match varchar2 default 'exact') is
    begin
        require_owner;
        delete from wamp_rule
         where grantee = upper(p_grantee) and action = p_action and uri = p_uri and match = p_match;
    end;

    function realm return varchar2 is
    begin
        return sys_context('WAMP_CTX', 'REALM');
    end;

    function session_id return varchar2 is
    begin
        return sys_context('WAMP_CTX', 'SESSION');
    end;

    function authid return varchar2 is
    begin
        return sys_context('WAMP_CTX', 'AUTHID');
    end;

    function authrole return varchar2 is
    begin
        return sys_context('WAMP_CTX', 'AUTHROLE');
    end;

    function details return varchar2 is
    begin
        return sys_context('WAMP_CTX', 'DETAILS', 4000);
    end;

    procedure require_publish(p_topic varchar2) is
    begin
        require_uri(p_topic);
        require('publish', p_topic);
    end;

    function schema_name return varchar2 is
    begin
        return owner;
    end;
end;
/
-- The text of a trigger that publishes what happens to the rows of a table to `topic.on_insert`, `.on_update`, `.on_delete`. With
-- the rights of who calls: it sees what that one may see.
create or replace function wamp_watch_sql(p_table varchar2, p_topic varchar2) return clob authid current_user as
    l_dot number := instr(p_table, '.');
    l_schema varchar2(128) := upper(case when l_dot > 0 then substr(p_table, 1, l_dot - 1)
                                    else sys_context('USERENV', 'CURRENT_SCHEMA') end);
    l_table varchar2(128) := upper(substr(p_table, l_dot + 1));
    l_new clob;
    l_old clob;

    function put(p_of varchar2, p_column varchar2, p_type varchar2) return varchar2 is
        l_value varchar2(400) := ':' || p_of || '."' || p_column || '"';
        l_key varchar2(300) := '''' || replace(lower(p_column), '''', '''''') || '''';
        l_written varchar2(600);
    begin
        l_written := case
            when p_type in ('NUMBER', 'VARCHAR2', 'CHAR', 'CLOB') then l_value
            when p_type = 'NCLOB' then 'to_clob(' || l_value || ')'
            when p_type = 'RAW' then 'rawtohex(' || l_value || ')'
            when p_type = 'DATE' then 'to_char(' || l_value || ', ''YYYY-MM-DD"T"HH24:MI:SS'')'
            else 'to_char(' || l_value || ')'
        end;
        return '        if ' || l_value || ' is null then l_' || p_of || '.put_null(' || l_key || '); else l_' || p_of
            || '.put(' || l_key || ', ' || l_written || '); end if;' || chr(10);
    end;
begin
    wamp.require_publish(p_topic || '.on_insert');
    wamp.require_publish(p_topic || '.on_update');
    wamp.require_publish(p_topic || '.on_delete');
    for it in (select column_name, data_type from all_tab_columns
                where owner = l_schema and table_name = l_table and data_type_owner is null
                  and data_type not in ('BLOB', 'BFILE', 'LONG', 'LONG RAW', 'JSON', 'VECTOR')
                order by column_id) loop
        l_new := l_new || put('new', it.column_name, it.data_type);
        l_old := l_old || put('old', it.column_name, it.data_type);
    end loop;
    if l_new is null then
        raise_application_error(-20998, 'there is no table ' || p_table || ' to be seen');
    end if;
    return 'create or replace trigger wamp_watch_' || ora_hash(p_table || ' ' || p_topic) || chr(10)
        || 'after insert or update or delete on ' || dbms_assert.enquote_name(l_schema, false) || '.'
        || dbms_assert.enquote_name(l_table, false) || ' for each row' || chr(10) || 'declare' || chr(10)
        || '    l_op varchar2(6) := case when inserting then ''insert'' when updating then ''update'' else ''delete'' end;'
        || chr(10) || '    l_news json_object_t := json_object_t();' || chr(10)
        || '    l_new json_object_t := json_object_t();' || chr(10)
        || '    l_old json_object_t := json_object_t();' || chr(10) || 'begin' || chr(10)
        || '    l_news.put(''op'', l_op);' || chr(10)
        || '    l_news.put(''table'', ' || dbms_assert.enquote_literal(replace(lower(l_table), '''', '''''')) || ');'
        || chr(10) || '    if not deleting then' || chr(10) || l_new || '        l_news.put(''new'', l_new);' || chr(10)
        || '    end if;' || chr(10) || '    if not inserting then' || chr(10) || l_old
        || '        l_news.put(''old'', l_old);' || chr(10) || '    end if;' || chr(10) || '    '
        || dbms_assert.enquote_name(wamp.schema_name, false) || '.wamp.publish('
        || dbms_assert.enquote_literal(p_topic || '.on_') || ' || l_op, p_kwargs => l_news.to_clob);'
        || chr(10) || 'end;';
end;
/
-- Makes the trigger with the rights of who calls, in whose schema it is then: who watches needs EXECUTE on WAMP of their own.
create or replace procedure wamp_watch(p_table varchar2, p_topic varchar2) authid current_user as
    l_sql clob := wamp_watch_sql(p_table, p_topic);
begin
    execute immediate l_sql;
end;
/
