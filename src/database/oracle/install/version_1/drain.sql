-- NEVER RUN AGAINST AN ORACLE SERVER BY US: see docs/oracle.md, and tell us what comes of it.
--
-- For routers. One of them at a time leads: it assigns positions to rows that wait and commits that, then sends, then marks.
-- A row is never looked for by its id: one with a smaller id may become visible later. What was assigned and not marked is sent
-- again, in order and identical, by whoever leads next.
create or replace package wamp_drain authid definer as
    -- The epoch of a router that leads from here on; null: another one does.
    function lead(p_who varchar2) return number;
    procedure release(p_epoch number);
    -- Assigns positions to as many rows; how many. Commits.
    function claim(p_epoch number, p_max number) return number;
    -- All up to this position were sent; where that was counted, to how many sessions: a list of JSON with lists of a position and a
    -- number, where who is missing was sent to nobody. Commits.
    procedure mark(p_epoch number, p_upto number, p_receivers clob default null);
    -- This one will not be sent. Commits.
    procedure set_aside(p_epoch number, p_position number, p_error varchar2);
    -- Whether publishers are to wake it. Commits.
    procedure sleeps(p_epoch number, p_asleep number);
    -- Waits until somebody wakes it, but no longer than so many seconds. Commits.
    procedure wait(p_seconds number);
    -- Forgets rows that were sent more than 10 minutes ago, or when 100,000 came after them; how many. Forgets what was set aside
    -- or put into `wamp_dead_letter` 7 days ago, and calls of yesterday. Commits.
    function prune(p_epoch number, p_max number) return number;

    -- The answer to a call that a statement has made; who wants it, once: a call may be answered twice when it was made again.
    -- Commits nothing: what that procedure does is of the same transaction.
    procedure finish_call(p_id number, p_args clob, p_kwargs clob, p_error varchar2,
                          p_on_schema out varchar2, p_on_package out varchar2, p_on_procedure out varchar2);
    -- Keeps an event or answer whose procedure has failed for good. Commits nothing.
    procedure bury(p_procedure varchar2, p_topic varchar2, p_args clob, p_kwargs clob, p_details clob, p_error varchar2,
                   p_attempts number);
end;
/
create or replace package body wamp_drain as
    -- Whoever died leads for so long yet.
    c_lease constant interval day to second := interval '15' second;

    function owner return varchar2 is
    begin
        return sys_context('USERENV', 'CURRENT_USER');
    end;

    function lead(p_who varchar2) return number is
        l_epoch number;
    begin
        update wamp_state set epoch = epoch + 1, leader = p_who, led_until = systimestamp + c_lease
         where led_until <= systimestamp
        returning epoch into l_epoch;
        commit;
        return l_epoch;
    end;

    -- Takes the row of the state, so that nothing else leads meanwhile; fails for who leads no more.
    function require(p_epoch number) return wamp_state%rowtype is
        l_state wamp_state%rowtype;
    begin
        select * into l_state from wamp_state where epoch = p_epoch for update;
        if l_state.led_until < systimestamp + interval '10' second then
            update wamp_state set led_until = systimestamp + c_lease;
        end if;
        return l_state;
    exception
        when no_data_found then
            raise_application_error(-20998, 'another router publishes what is in it');
    end;

    procedure release(p_epoch number) is
    begin
        update wamp_state set led_until = systimestamp, leader = null where epoch = p_epoch;
        commit;
    end;

    function claim(p_epoch number, p_max number) return number is
        type numbers is table of number index by pls_integer;
        l_ids numbers;
        l_positions numbers;
        l_state wamp_state%rowtype;
        l_until wamp_state.led_until%type;
        l_count number;
        cursor c_waiting is
            select id from wamp_outbox
             where case when position is null and error is null then id end is not null
             order by case when position is null and error is null then id end
               for update skip locked;
    begin
        -- A look that finds nothing takes no lock, as long as the lease is not about to end.
        select led_until into l_until from wamp_state;
        if l_until > systimestamp + interval '10' second then
            select count(*) into l_count from wamp_outbox
             where case when position is null and error is null then id end is not null and rownum = 1;
            if l_count = 0 then
                return 0;
            end if;
        end if;
        l_state := require(p_epoch);
        open c_waiting;
        fetch c_waiting bulk collect into l_ids limit p_max;
        close c_waiting;
        l_count := l_ids.count;
        for i in 1 .. l_count loop
            l_positions(i) := l_state.last + i;
        end loop;
        forall i in 1 .. l_count
            update wamp_outbox set position = l_positions(i) where id = l_ids(i);
        update wamp_state set last = last + l_count;
        commit;
        return l_count;
    end;

    procedure mark(p_epoch number, p_upto number, p_receivers clob default null) is
        l_state wamp_state%rowtype := require(p_epoch);
        l_nobody number := case when p_receivers is not null then 0 end;
    begin
        update wamp_outbox set sent_at = systimestamp, receivers = case when kind = 'event' then l_nobody end
         where position > l_state.sent and position <= p_upto and sent_at is null and error is null;
        if p_receivers is not null then
            for it in (select place, sessions
                         from json_table(p_receivers, '$[*]'
                              columns (place number path '$[0]', sessions number path '$[1]'))) loop
                update wamp_outbox set receivers = it.sessions where position = it.place;
            end loop;
        end if;
        update wamp_state set sent = greatest(sent, p_upto);
        commit;
    end;

    procedure set_aside(p_epoch number, p_position number, p_error varchar2) is
        l_state wamp_state%rowtype := require(p_epoch);
    begin
        update wamp_outbox set error = substrb(p_error, 1, 2000) where position = p_position;
        commit;
    end;

    procedure sleeps(p_epoch number, p_asleep number) is
        l_state wamp_state%rowtype := require(p_epoch);
    begin
        update wamp_wake set asleep = p_asleep;
        commit;
    end;

    procedure wait(p_seconds number) is
        l_message varchar2(1800);
        l_status integer;
    begin
        begin
            -- By its name at run time: the package works without the privilege, and then sleeps.
            execute immediate 'begin sys.dbms_alert.register(:1); sys.dbms_alert.waitone(:1, :2, :3, :4); end;'
                using substr('WAMP_' || owner, 1, 30), out l_message, out l_status, p_seconds;
        exception
            when others then dbms_session.sleep(p_seconds);
        end;
        commit;
    end;

    function prune(p_epoch number, p_max number) return number is
        l_state wamp_state%rowtype := require(p_epoch);
        l_upto number;
        l_count number;
    begin
        -- The beginning of them: who resumes is told by one number what is gone.
        select max(position) into l_upto from wamp_outbox
         where position <= l_state.sent and position <= l_state.pruned + p_max
           and (sent_at < systimestamp - interval '10' minute or position <= l_state.last - 100000);
        delete from wamp_outbox where position <= l_upto and error is null;
        l_count := sql%rowcount;
        update wamp_state set pruned = greatest(pruned, l_upto) where l_upto is not null;
        delete from wamp_outbox
         where case when error is not null then id end is not null
           and published_at < systimestamp - interval '7' day and rownum <= p_max;
        delete from wamp_dead_letter where buried_at < systimestamp - interval '7' day and rownum <= p_max;
        delete from wamp_call where called_at < systimestamp - interval '1' day and rownum <= p_max;
        commit;
        return l_count;
    end;

    procedure finish_call(p_id number, p_args clob, p_kwargs clob, p_error varchar2,
                          p_on_schema out varchar2, p_on_package out varchar2, p_on_procedure out varchar2) is
    begin
        update wamp_call
           set finished_at = systimestamp, args = null, kwargs = null, answer_error = substrb(p_error, 1, 1024),
               answer_args = nvl(p_args, to_clob('[]')), answer_kwargs = nvl(p_kwargs, to_clob('{}'))
         where id = p_id and finished_at is null
        returning on_schema, on_package, on_procedure into p_on_schema, p_on_package, p_on_procedure;
    end;

    procedure bury(p_procedure varchar2, p_topic varchar2, p_args clob, p_kwargs clob, p_details clob, p_error varchar2,
                   p_attempts number) is
    begin
        insert into wamp_dead_letter (procedure_name, topic, args, kwargs, details, error, attempts, buried_at)
        values (p_procedure, p_topic, p_args, p_kwargs, p_details, substrb(p_error, 1, 2000), p_attempts, systimestamp);
    end;
end;
/
