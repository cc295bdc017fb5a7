-- NEVER RUN AGAINST AN ORACLE SERVER BY US: see docs/oracle.md, and tell us what comes of it.
--
-- The names that Crossbar had for Oracle in 2013, for those who have them in their packages. What was said with PL/JSON is said
-- with the JSON types of the database. Other than then, events leave with the transaction.
begin
    execute immediate 'create type crossbar_sessionids as table of varchar2(16)';
exception
    when others then
        if sqlcode <> -955 then raise; end if;
end;
/
begin
    execute immediate 'create type crossbar_authkeys as table of varchar2(30)';
exception
    when others then
        if sqlcode <> -955 then raise; end if;
end;
/
create or replace package crossbar authid definer as
    qos_best_effort constant integer := 1;

    -- An event without arguments, with a text, or with a value of JSON as its one argument; the number of the event.
    function publish(p_topic nvarchar2, p_exclude crossbar_sessionids default null,
                     p_eligible crossbar_sessionids default null, p_qos integer default qos_best_effort) return number;
    function publish(p_topic nvarchar2, p_payload nvarchar2, p_exclude crossbar_sessionids default null,
                     p_eligible crossbar_sessionids default null, p_qos integer default qos_best_effort) return number;
    function publish(p_topic nvarchar2, p_payload json_element_t, p_exclude crossbar_sessionids default null,
                     p_eligible crossbar_sessionids default null, p_qos integer default qos_best_effort) return number;
    procedure publish(p_topic nvarchar2, p_exclude crossbar_sessionids default null,
                      p_eligible crossbar_sessionids default null, p_qos integer default qos_best_effort);
    procedure publish(p_topic nvarchar2, p_payload nvarchar2, p_exclude crossbar_sessionids default null,
                      p_eligible crossbar_sessionids default null, p_qos integer default qos_best_effort);
    procedure publish(p_topic nvarchar2, p_payload json_element_t, p_exclude crossbar_sessionids default null,
                      p_eligible crossbar_sessionids default null, p_qos integer default qos_best_effort);

    -- Offers a procedure at a URI. Who may call it the permissions of roles say: authkeys are refused.
    function export(p_schema varchar2, p_package varchar2, p_proc varchar2, p_endpoint nvarchar2,
                    p_authkeys crossbar_authkeys default null) return number;
    procedure export(p_package varchar2, p_proc varchar2, p_endpoint nvarchar2,
                     p_authkeys crossbar_authkeys default null);
    procedure remove_export(p_endpoint_id number);
    function remove_exports(p_schema varchar2, p_package varchar2, p_proc varchar2) return number;
    procedure remove_exports(p_schema varchar2, p_package varchar2, p_proc varchar2);
    procedure remove_exports(p_package varchar2, p_proc varchar2 default null);
    function remove_exports_by_uri(p_uri_pattern varchar2) return number;
    procedure remove_exports_by_uri(p_uri_pattern varchar2);

    -- Ends the call with an ERROR. Sessions are not ended by it: `p_kill_session` is refused.
    procedure raise(p_uri varchar2, p_desc varchar2, p_kill_session boolean default false);
    procedure raise(p_uri varchar2, p_desc varchar2, p_detail json_element_t, p_kill_session boolean default false);
end;
/
create or replace package body crossbar as
    procedure refuse(p_what varchar2) is
    begin
        raise_application_error(-20001, p_what || ' is not supported');
    end;

    function ids(p_ids crossbar_sessionids) return json_array_t is
        l_ids json_array_t := json_array_t();
    begin
        for i in 1 .. p_ids.count loop
            l_ids.append(to_number(p_ids(i)));
        end loop;
        return l_ids;
    end;

    function send(p_topic nvarchar2, p_args json_array_t, p_exclude crossbar_sessionids,
                  p_eligible crossbar_sessionids, p_qos integer) return number is
        l_options json_object_t := json_object_t();
    begin
        if p_qos <> qos_best_effort then
            refuse('QoS mode ' || p_qos);
        end if;
        if p_exclude is not null then
            l_options.put('exclude', ids(p_exclude));
        end if;
        if p_eligible is not null then
            l_options.put('eligible', ids(p_eligible));
        end if;
        return wamp.publish(to_char(p_topic), p_args, null, l_options);
    end;

    function publish(p_topic nvarchar2, p_exclude crossbar_sessionids default null,
                     p_eligible crossbar_sessionids default null, p_qos integer default qos_best_effort) return number is
    begin
        return send(p_topic, json_array_t(), p_exclude, p_eligible, p_qos);
    end;

    function publish(p_topic nvarchar2, p_payload nvarchar2, p_exclude crossbar_sessionids default null,
                     p_eligible crossbar_sessionids default null, p_qos integer default qos_best_effort) return number is
        l_args json_array_t := json_array_t();
    begin
        l_args.append(to_char(p_payload));
        return send(p_topic, l_args, p_exclude, p_eligible, p_qos);
    end;

    function publish(p_topic nvarchar2, p_payload json_element_t, p_exclude crossbar_sessionids default null,
                     p_eligible crossbar_sessionids default null, p_qos integer default qos_best_effort) return number is
        l_args json_array_t := json_array_t();
    begin
        l_args.append(p_payload);
        return send(p_topic, l_args, p_exclude, p_eligible, p_qos);
    end;

    procedure publish(p_topic nvarchar2, p_exclude crossbar_sessionids default null,
                      p_eligible crossbar_sessionids default null, p_qos integer default qos_best_effort) is
        l_id number := publish(p_topic, p_exclude, p_eligible, p_qos);
    begin
        null;
    end;

    procedure publish(p_topic nvarchar2, p_payload nvarchar2, p_exclude crossbar_sessionids default null,
                      p_eligible crossbar_sessionids default null, p_qos integer default qos_best_effort) is
        l_id number := publish(p_topic, p_payload, p_exclude, p_eligible, p_qos);
    begin
        null;
    end;

    procedure publish(p_topic nvarchar2, p_payload json_element_t, p_exclude crossbar_sessionids default null,
                      p_eligible crossbar_sessionids default null, p_qos integer default qos_best_effort) is
        l_id number := publish(p_topic, p_payload, p_exclude, p_eligible, p_qos);
    begin
        null;
    end;

    function export(p_schema varchar2, p_package varchar2, p_proc varchar2, p_endpoint nvarchar2,
                    p_authkeys crossbar_authkeys default null) return number is
    begin
        if p_authkeys is not null then
            refuse('a list of authkeys');
        end if;
        return wamp.register(to_char(p_endpoint), p_schema, p_package, p_proc);
    end;

    procedure export(p_package varchar2, p_proc varchar2, p_endpoint nvarchar2,
                     p_authkeys crossbar_authkeys default null) is
        l_id number;
    begin
        l_id := export(sys_context('USERENV', 'SESSION_USER'), p_package, p_proc, p_endpoint, p_authkeys);
    end;

    procedure remove_export(p_endpoint_id number) is
    begin
        for it in (select uri from wamp_registration where id = p_endpoint_id) loop
            wamp.unregister(it.uri);
        end loop;
    end;

    function remove_exports(p_schema varchar2, p_package varchar2, p_proc varchar2) return number is
        l_count number := 0;
    begin
        for it in (select uri from wamp_registration
                    where schema_name = upper(p_schema) and package_name = upper(p_package)
                      and (p_proc is null or procedure_name = upper(p_proc))
                      and registered_by = sys_context('USERENV', 'SESSION_USER')) loop
            wamp.unregister(it.uri);
            l_count := l_count + 1;
        end loop;
        return l_count;
    end;

    procedure remove_exports(p_schema varchar2, p_package varchar2, p_proc varchar2) is
        l_count number := remove_exports(p_schema, p_package, p_proc);
    begin
        null;
    end;

    procedure remove_exports(p_package varchar2, p_proc varchar2 default null) is
        l_count number;
    begin
        l_count := remove_exports(sys_context('USERENV', 'SESSION_USER'), p_package, p_proc);
    end;

    function remove_exports_by_uri(p_uri_pattern varchar2) return number is
        l_count number := 0;
    begin
        for it in (select uri from wamp_registration
                    where uri like p_uri_pattern and registered_by = sys_context('USERENV', 'SESSION_USER')) loop
            wamp.unregister(it.uri);
            l_count := l_count + 1;
        end loop;
        return l_count;
    end;

    procedure remove_exports_by_uri(p_uri_pattern varchar2) is
        l_count number := remove_exports_by_uri(p_uri_pattern);
    begin
        null;
    end;

    procedure raise(p_uri varchar2, p_desc varchar2, p_kill_session boolean default false) is
    begin
        if p_kill_session then
            refuse('to end sessions by an error');
        end if;
        wamp.error(p_uri, p_desc);
    end;

    procedure raise(p_uri varchar2, p_desc varchar2, p_detail json_element_t, p_kill_session boolean default false) is
        l_error json_object_t := json_object_t();
    begin
        if p_kill_session then
            refuse('to end sessions by an error');
        end if;
        l_error.put('uri', p_uri);
        l_error.put('desc', p_desc);
        l_error.put('detail', p_detail);
        raise_application_error(-20999, l_error.to_string);
    end;
end;
/
