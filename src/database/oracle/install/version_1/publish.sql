-- NEVER RUN AGAINST AN ORACLE SERVER BY US: see docs/oracle.md, and tell us what comes of it.
--
-- Publishing, errors, registering, subscribing, calling, and who calls. Events and calls leave when the transaction commits;
-- what is rolled back never was. Functions that stand in the body alone are unknown to SQL: there, variables have their values.
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
    -- execute it. Without a package it stands alone. Of other schemas than one's own the owner of this package alone may.
    function register(p_uri varchar2, p_schema varchar2, p_package varchar2, p_procedure varchar2) return number;
    procedure register(p_uri varchar2, p_schema varchar2, p_package varchar2, p_procedure varchar2);
    procedure unregister(p_uri varchar2);

    -- An event of the topic or pattern (`exact`, `prefix` or `wildcard`) calls the procedure with its list of arguments, its
    -- object of them, and an object of what else is known of it, as many as it takes; all are JSON, as CLOB, VARCHAR2 or JSON.
    -- The number of the subscription.
    function subscribe(p_topic varchar2, p_schema varchar2, p_package varchar2, p_procedure varchar2,
                       p_match varchar2 default 'exact') return number;
    procedure subscribe(p_topic varchar2, p_schema varchar2, p_package varchar2, p_procedure varchar2,
                        p_match varchar2 default 'exact');
    procedure unsubscribe(p_topic varchar2, p_schema varchar2, p_package varchar2, p_procedure varchar2,
                          p_match varchar2 default 'exact');

    -- Calls a procedure once this transaction has committed; the number of the call. The answer is kept for a day and, where
    -- one is named, given to a procedure of one's own, `procedure`, `package.procedure` or `schema.package.procedure`: the number,
    -- args, kwargs and the URI of an error, as many as it takes. After `p_timeout_ms` the answer is an error, and if no
    -- router has made the call until then none will; without it the call waits for a router.
    function call_async(p_procedure varchar2, p_args clob default null, p_kwargs clob default null,
                        p_on_result varchar2 default null, p_timeout_ms number default null) return number;
    procedure call_async(p_procedure varchar2, p_args clob default null, p_kwargs clob default null,
                         p_on_result varchar2 default null, p_timeout_ms number default null);
    function call_async(p_procedure varchar2, p_args json_array_t, p_kwargs json_object_t default null,
                        p_on_result varchar2 default null, p_timeout_ms number default null) return number;
    procedure call_async(p_procedure varchar2, p_args json_array_t, p_kwargs json_object_t default null,
                         p_on_result varchar2 default null, p_timeout_ms number default null);
    -- The answer to one's own call: null while there is none, {"args", "kwargs"}, or {"error", "args", "kwargs"}.
    function call_result(p_id number) return clob;
    -- Calls and waits. In a transaction of its own, because nobody sees the call before that commits: who waits commits
    -- nothing by it, and the call stands even if who waits rolls back. An error is raised with the URI that it has.
    function call_wait(p_procedure varchar2, p_args clob default null, p_kwargs clob default null,
                       p_timeout_ms number default 5000) return clob;

    -- Who may publish, subscribe, register and call what; for the owner alone.
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

    procedure require_uri(p_uri varchar2, p_match varchar2 default 'exact') is
    begin
        if p_match is null or p_match not in ('exact', 'prefix', 'wildcard') then
            raise_application_error(-20998, 'match is ' || nvl(p_match, 'null') || ', not exact, prefix or wildcard');
        end if;
        if p_uri is null or lengthb(p_uri) > 1024 or regexp_count(p_uri, '\.') > 63
           or p_match = 'exact' and not regexp_like(p_uri, '^[^[:space:].#]+(\.[^[:space:].#]+)*$')
           or p_match <> 'exact' and regexp_like(p_uri, '[[:space:]#]') then
            raise_application_error(-20998, '"' || substr(p_uri, 1, 200) || '" is not a URI: components with dots '
                || 'between them, none empty, no white space and no #; at most 64 of them and 1024 bytes');
        end if;
        if p_uri = 'wamp' or p_uri like 'wamp.%' then
            raise_application_error(-20998, p_uri || ' begins with wamp, which is the protocol''s own');
        end if;
    end;

    -- A pattern is allowed if all that it can match is: by a rule for a prefix of what it says before its first wildcard.
    procedure require(p_action varchar2, p_uri varchar2, p_match varchar2 default 'exact') is
        l_me varchar2(128) := me;
        l_count number;
        l_said varchar2(1024) := case
            when p_match <> 'wildcard' then p_uri
            when substr(p_uri, 1, 1) = '.' then null
            when instr(p_uri, '..') > 0 then substr(p_uri, 1, instr(p_uri, '..'))
            else p_uri
        end;
    begin
        if l_me = owner then
            return;
        end if;
        select count(*) into l_count from wamp_rule
         where action = p_action and grantee in (l_me, 'PUBLIC')
           and (match = 'exact' and p_match = 'exact' and uri = p_uri
                or match = 'prefix' and (uri = '*' or substr(l_said, 1, length(uri)) = uri))
           and rownum = 1;
        if l_count = 0 then
            raise_application_error(-20998, 'the database user ' || l_me || ' may not ' || p_action || ' ' || p_uri);
        end if;
    end;

    -- The router runs it, with its own rights where the procedure has those of its caller: so nobody names what is another's.
    procedure require_own(p_schema varchar2) is
    begin
        if me <> owner and (p_schema is null or upper(p_schema) <> me) then
            raise_application_error(-20998, 'the database user ' || me || ' may name procedures of the schema ' || me
                || ' alone; those of others may ' || owner);
        end if;
    end;

    procedure require_json(p_args clob, p_kwargs clob, p_options clob default null) is
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
    end;

    function text_of(p_list json_array_t) return clob is
    begin
        return case when p_list is not null then p_list.to_clob end;
    end;

    function text_of(p_object json_object_t) return clob is
    begin
        return case when p_object is not null then p_object.to_clob end;
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

    -- How many events led to what runs.
    function current_depth return number is
    begin
        return nvl(to_number(sys_context('WAMP_CTX', 'DEPTH')), 0);
    end;

    function enqueue(p_kind varchar2, p_uri varchar2, p_args clob, p_kwargs clob, p_options clob) return number is
        l_me varchar2(128) := me;
        l_depth number := current_depth;
        l_id number;
    begin
        insert into wamp_outbox (kind, topic, args, kwargs, options, session_id, depth, db_user, published_at)
        values (p_kind, p_uri, p_args, p_kwargs, p_options, sys_context('WAMP_CTX', 'SESSION'), l_depth, l_me,
                systimestamp)
        returning id into l_id;
        wake;
        return l_id;
    end;

    function publish_raw(p_topic varchar2, p_args clob, p_kwargs clob default null, p_options clob default null)
        return number is
    begin
        require_publish(p_topic);
        return enqueue('event', p_topic, p_args, p_kwargs, p_options);
    end;

    -- What is no JSON is said here, and not when it is dispatched, where nobody could answer for it any more.
    function publish(p_topic varchar2, p_args clob default null, p_kwargs clob default null,
                     p_options clob default null) return number is
    begin
        require_json(p_args, p_kwargs, p_options);
        return publish_raw(p_topic, p_args, p_kwargs, p_options);
    end;

    procedure publish(p_topic varchar2, p_args clob default null, p_kwargs clob default null,
                      p_options clob default null) is
        l_id number := publish(p_topic, p_args, p_kwargs, p_options);
    begin
        null;
    end;

    function publish(p_topic varchar2, p_args json_array_t, p_kwargs json_object_t default null,
                     p_options json_object_t default null) return number is
    begin
        return publish_raw(p_topic, text_of(p_args), text_of(p_kwargs), text_of(p_options));
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
        l_me varchar2(128) := me;
        l_id number;
    begin
        require_uri(p_uri);
        require('register', p_uri);
        require_own(p_schema);
        update wamp_registration
           set schema_name = upper(p_schema), package_name = upper(p_package), procedure_name = upper(p_procedure)
         where uri = p_uri and registered_by = l_me
        returning id into l_id;
        if sql%rowcount = 0 then
            insert into wamp_registration (uri, schema_name, package_name, procedure_name, registered_by)
            values (p_uri, upper(p_schema), upper(p_package), upper(p_procedure), l_me)
            returning id into l_id;
        end if;
        return l_id;
    exception
        when dup_val_on_index then
            raise_application_error(-20998, p_uri || ' is registered by another user');
    end;

    procedure register(p_uri varchar2, p_schema varchar2, p_package varchar2, p_procedure varchar2) is
        l_id number := register(p_uri, p_schema, p_package, p_procedure);
    begin
        null;
    end;

    procedure unregister(p_uri varchar2) is
        l_me varchar2(128) := me;
        l_owner varchar2(128) := owner;
    begin
        delete from wamp_registration where uri = p_uri and (registered_by = l_me or l_me = l_owner);
    end;

    function subscribe(p_topic varchar2, p_schema varchar2, p_package varchar2, p_procedure varchar2,
                       p_match varchar2 default 'exact') return number is
        l_me varchar2(128) := me;
        l_id number;
    begin
        require_uri(p_topic, p_match);
        require('subscribe', p_topic, p_match);
        require_own(p_schema);
        select max(id) into l_id from wamp_subscription
         where topic = p_topic and match = p_match and schema_name = upper(p_schema)
           and (package_name = upper(p_package) or package_name is null and p_package is null)
           and procedure_name = upper(p_procedure);
        if l_id is null then
            insert into wamp_subscription (topic, match, schema_name, package_name, procedure_name, subscribed_by)
            values (p_topic, p_match, upper(p_schema), upper(p_package), upper(p_procedure), l_me)
            returning id into l_id;
        end if;
        return l_id;
    exception
        when dup_val_on_index then
            raise_application_error(-20998, 'another session subscribes ' || p_topic || ' with it at this moment');
    end;

    procedure subscribe(p_topic varchar2, p_schema varchar2, p_package varchar2, p_procedure varchar2,
                        p_match varchar2 default 'exact') is
        l_id number := subscribe(p_topic, p_schema, p_package, p_procedure, p_match);
    begin
        null;
    end;

    procedure unsubscribe(p_topic varchar2, p_schema varchar2, p_package varchar2, p_procedure varchar2,
                          p_match varchar2 default 'exact') is
        l_me varchar2(128) := me;
        l_owner varchar2(128) := owner;
    begin
        delete from wamp_subscription
         where topic = p_topic and match = p_match and schema_name = upper(p_schema)
           and (package_name = upper(p_package) or package_name is null and p_package is null)
           and procedure_name = upper(p_procedure) and (subscribed_by = l_me or l_me = l_owner);
    end;

    function call_async(p_procedure varchar2, p_args clob default null, p_kwargs clob default null,
                        p_on_result varchar2 default null, p_timeout_ms number default null) return number is
        l_me varchar2(128) := me;
        l_depth number := current_depth;
        l_id number;
        l_dots number := regexp_count(p_on_result, '\.');
        l_schema varchar2(128);
        l_package varchar2(128);
        l_procedure varchar2(128);
    begin
        if p_timeout_ms < 1 then
            raise_application_error(-20998, 'a call cannot be answered within ' || p_timeout_ms || ' ms');
        end if;
        require_uri(p_procedure);
        require('call', p_procedure);
        require_json(p_args, p_kwargs);
        if p_on_result is not null then
            -- It runs with the router's rights, as what is registered does.
            require('register', p_procedure);
            l_procedure := upper(regexp_substr(p_on_result, '[^.]+$'));
            if l_dots > 0 then
                l_package := upper(regexp_substr(p_on_result, '[^.]+', 1, l_dots));
            end if;
            l_schema := case when l_dots = 2 then upper(regexp_substr(p_on_result, '[^.]+')) else l_me end;
            require_own(l_schema);
            if l_dots > 2 or l_procedure is null then
                raise_application_error(-20998, '"' || substr(p_on_result, 1, 200)
                    || '" is neither procedure nor package.procedure nor schema.package.procedure');
            end if;
        end if;
        l_id := enqueue('call', p_procedure, null, null, null);
        insert into wamp_call (id, uri, args, kwargs, on_schema, on_package, on_procedure, timeout_ms, depth, db_user,
                               called_at)
        values (l_id, p_procedure, p_args, p_kwargs, l_schema, l_package, l_procedure, p_timeout_ms, l_depth, l_me,
                systimestamp);
        return l_id;
    end;

    procedure call_async(p_procedure varchar2, p_args clob default null, p_kwargs clob default null,
                         p_on_result varchar2 default null, p_timeout_ms number default null) is
        l_id number := call_async(p_procedure, p_args, p_kwargs, p_on_result, p_timeout_ms);
    begin
        null;
    end;

    function call_async(p_procedure varchar2, p_args json_array_t, p_kwargs json_object_t default null,
                        p_on_result varchar2 default null, p_timeout_ms number default null) return number is
    begin
        return call_async(p_procedure, text_of(p_args), text_of(p_kwargs), p_on_result, p_timeout_ms);
    end;

    procedure call_async(p_procedure varchar2, p_args json_array_t, p_kwargs json_object_t default null,
                         p_on_result varchar2 default null, p_timeout_ms number default null) is
        l_id number := call_async(p_procedure, p_args, p_kwargs, p_on_result, p_timeout_ms);
    begin
        null;
    end;

    function answer_of(p_call wamp_call%rowtype) return clob is
        l_answer clob := to_clob('{');
        l_error json_object_t := json_object_t();
    begin
        if p_call.finished_at is null then
            return null;
        end if;
        if p_call.answer_error is not null then
            l_error.put('error', p_call.answer_error);
            -- Without the brace behind it.
            l_answer := to_clob(substr(l_error.to_string, 1, length(l_error.to_string) - 1) || ',');
        end if;
        return l_answer || '"args":' || p_call.answer_args || ',"kwargs":' || p_call.answer_kwargs || '}';
    end;

    function call_result(p_id number) return clob is
        l_call wamp_call%rowtype;
    begin
        select * into l_call from wamp_call where id = p_id;
        if l_call.db_user <> me and me <> owner then
            raise_application_error(-20998, 'this is of the database user ' || l_call.db_user);
        end if;
        return answer_of(l_call);
    exception
        when no_data_found then
            raise_application_error(-20998, 'there is no call ' || p_id || ': answers are kept for a day');
    end;

    -- Of an error what there is room for.
    procedure fail_as(p_uri varchar2, p_args clob, p_kwargs clob) is
        l_error json_object_t := json_object_t();
        l_text varchar2(32767);
    begin
        l_error.put('uri', p_uri);
        if dbms_lob.getlength(p_args) + dbms_lob.getlength(p_kwargs) <= 2000 then
            l_error.put('args', json_array_t.parse(p_args));
            l_error.put('kwargs', json_object_t.parse(p_kwargs));
        end if;
        l_text := l_error.to_string;
        if lengthb(l_text) > 2000 then
            l_error := json_object_t();
            l_error.put('uri', p_uri);
            l_text := l_error.to_string;
        end if;
        raise_application_error(-20999, l_text);
    end;

    function call_wait(p_procedure varchar2, p_args clob default null, p_kwargs clob default null,
                       p_timeout_ms number default 5000) return clob is
        pragma autonomous_transaction;
        l_until timestamp with time zone := systimestamp + numtodsinterval(p_timeout_ms / 1000, 'second');
        l_pause number := 0.01;
        l_id number;
        l_call wamp_call%rowtype;
    begin
        if p_timeout_ms is null then
            raise_application_error(-20998, 'who waits says for how long');
        end if;
        l_id := call_async(p_procedure, p_args, p_kwargs, null, p_timeout_ms);
        loop
            -- Each look sees what is committed by then, whatever isolation the session has; and none leaves anything open.
            commit;
            select * into l_call from wamp_call where id = l_id;
            exit when l_call.finished_at is not null;
            if systimestamp >= l_until then
                commit;
                error('wamp.error.timeout', p_procedure || ' was not answered within ' || p_timeout_ms || ' ms');
            end if;
            dbms_session.sleep(l_pause);
            l_pause := least(l_pause * 2, 0.05);
        end loop;
        commit;
        if l_call.answer_error is not null then
            fail_as(l_call.answer_error, l_call.answer_args, l_call.answer_kwargs);
        end if;
        return answer_of(l_call);
    exception
        when others then
            -- What fails before it is called is undone; behind that there is nothing left to undo.
            rollback;
            raise;
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
