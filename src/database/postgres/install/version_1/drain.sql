-- What the one drainer does. Only roles that `wamp.trust_router` names may; every function commits on its own.
--
--     LISTEN wamp
--     lead(name)            gives an epoch, or nothing while another router leads: then try again from time to time
--     unsent(epoch, after)  what an earlier leader assigned and did not mark: dispatch it again, unchanged
--     awake(epoch)
--     loop
--         claim(epoch, ..)  gives new rows their positions. Dispatch them when the COMMIT of this statement is confirmed, and
--                           not before: until then the positions may be given to other rows.
--         mark(epoch, upto) once they are dispatched, in the order of their positions
--         when nothing has come for a while:
--             doze(epoch)                 from now on publishers notify
--             h = horizon(epoch)          in a transaction of its own
--             until settled(h): claim, wait a little
--             claim once more; if that is empty too, wait for a notification (with a deadline, for safety), then awake
--     resign(epoch)         publishers need not notify while nobody listens
--
-- **Nobody is forgotten.** A publisher writes its row, by which its transaction has got its number, and then reads the flag. If
-- it reads "awake" it did so before `doze` wrote, and `horizon` draws a number after that; so its number is smaller. Once
-- all numbers up to the horizon have ended (`settled`) its row is visible, or was rolled back, and the last claim sees
-- it. If it reads "asleep", its commit notifies. The horizon must not be drawn in the transaction of `doze`, which gets
-- its number before it writes the flag; and it must not be the end of a snapshot, which is the number after the last
-- transaction that has *ended*: one that is newer and still runs lies beyond it.

CREATE OR REPLACE FUNCTION wamp.require_leader(epoch bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF epoch IS DISTINCT FROM (SELECT drain.epoch FROM wamp.drain) THEN
        RAISE EXCEPTION 'another router leads since' USING ERRCODE = 'WA003',
            HINT = 'Dispatch nothing more; ask wamp.lead for a new epoch.';
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION wamp.require_read_committed() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the drainer needs READ COMMITTED' USING ERRCODE = 'invalid_transaction_state',
            HINT = 'Set default_transaction_isolation of the router''s role.';
    END IF;
END
$$;

-- Makes this session's router the one that drains. The lock lasts as long as the session; the epoch keeps out a router that
-- has lost its session and does not know it yet.
CREATE OR REPLACE FUNCTION wamp.lead(router text) RETURNS TABLE (epoch bigint, last bigint, sent bigint, pruned bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM wamp.require_read_committed();
    -- Locks of a session are counted; one is enough.
    IF NOT EXISTS (SELECT FROM pg_locks
                    WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted
                      AND (classid, objid, objsubid) = (2002873712, 1, 2)
                      AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
       AND NOT pg_try_advisory_lock(2002873712, 1) THEN
        RETURN;
    END IF;
    RETURN QUERY UPDATE wamp.drain SET epoch = drain.epoch + 1, leader = router, led_at = clock_timestamp(),
                                       -- Numbers of transactions may be those of another server, by way of a backup.
                                       floor_next = NULL, floor_horizon = NULL
                 RETURNING drain.epoch, drain.last, drain.sent, drain.pruned;
END
$$;

CREATE OR REPLACE FUNCTION wamp.resign(epoch bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM wamp.require_leader(epoch);
    PERFORM setval('wamp.asleep', 0);
    UPDATE wamp.drain SET epoch = drain.epoch + 1, leader = NULL, led_at = NULL;
    PERFORM pg_advisory_unlock(2002873712, 1);
END
$$;

CREATE OR REPLACE FUNCTION wamp.awake(epoch bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM wamp.require_leader(epoch);
    PERFORM setval('wamp.asleep', 0);
END
$$;

CREATE OR REPLACE FUNCTION wamp.doze(epoch bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM wamp.require_leader(epoch);
    PERFORM setval('wamp.asleep', 1), set_config('wamp.dozing', pg_backend_pid()::text, true);
END
$$;

CREATE OR REPLACE FUNCTION wamp.horizon(epoch bigint) RETURNS xid8
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM wamp.require_leader(epoch);
    IF coalesce(current_setting('wamp.dozing', true), '') <> '' THEN
        RAISE EXCEPTION 'wamp.horizon must not be called in the transaction of wamp.doze'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    RETURN pg_current_xact_id();
END
$$;

-- Whether every transaction up to the horizon has ended.
CREATE OR REPLACE FUNCTION wamp.settled(horizon xid8) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM wamp.require_read_committed();
    RETURN pg_snapshot_xmin(pg_current_snapshot()) > horizon;
END
$$;

-- Here and below plans are kept off everything but the indexes. How many rows wait changes between none and all of them within
-- a second, and a plan that was made by statistics of another moment would read the whole table, every 2 ms. What is kept off is
-- counted as immensely dear where there is no other way, as in a table of one row: hence no compiling either.

-- Gives positions to the oldest rows that wait: at most `rows_max` rows and `bytes_max` bytes, but one row at least. Rows of
-- more than `row_bytes_max` bytes are set aside and come without position and payload, with the reason.
CREATE OR REPLACE FUNCTION wamp.claim(epoch bigint, rows_max integer, bytes_max bigint, row_bytes_max integer)
RETURNS TABLE (id bigint, "position" bigint, kind text, uri text, args json, kwargs json, options json, bytes integer, session bigint, depth integer, db_user text, published_at timestamptz, set_aside text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    progress wamp.drain;
    drawn bigint;
BEGIN
    PERFORM wamp.require_read_committed(), wamp.require_leader(claim.epoch);
    -- Whoever has drawn an id by now had a number before, which is smaller than the one that this transaction gets later.
    SELECT last_value INTO drawn FROM wamp.outbox_id_seq;
    SELECT * INTO progress FROM wamp.drain;
    IF drawn < progress.floor THEN
        -- Somebody has made the ids begin anew.
        UPDATE wamp.drain SET floor = 0, floor_next = NULL RETURNING * INTO progress;
    END IF;
    -- A look that finds nothing must not write: it would wait for the disk.
    IF NOT EXISTS (SELECT FROM wamp.outbox
                    WHERE outbox.position IS NULL AND outbox.set_aside IS NULL AND outbox.id > progress.floor
                      AND (outbox.logged OR outbox.kind <> 'event' OR NOT (SELECT setting.log_ends FROM wamp.setting))) THEN
        RETURN;
    END IF;
    IF pg_current_xact_id_if_assigned() IS NOT NULL THEN
        drawn := NULL;
    END IF;
    SELECT * INTO progress FROM wamp.drain FOR UPDATE;
    IF progress.epoch <> claim.epoch THEN
        PERFORM wamp.require_leader(claim.epoch);
    END IF;
    -- By one snapshot: all that may have drawn these ids have ended, and none of their rows waits.
    IF progress.floor_next IS NOT NULL AND pg_snapshot_xmin(pg_current_snapshot()) > progress.floor_horizon AND NOT EXISTS (
        SELECT FROM wamp.outbox WHERE outbox.position IS NULL AND outbox.set_aside IS NULL
                                  AND outbox.id > progress.floor AND outbox.id <= progress.floor_next) THEN
        progress.floor := progress.floor_next;
        progress.floor_next := NULL;
    END IF;
    IF progress.floor_next IS NULL AND drawn IS NOT NULL THEN
        progress.floor_next := drawn;
        progress.floor_horizon := pg_current_xact_id();
    END IF;
    -- Positions must not be lost once they are dispatched, whatever this role or database is set to.
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    RETURN QUERY
    WITH candidate AS MATERIALIZED (
        SELECT outbox.id, outbox.bytes, outbox.bytes > row_bytes_max AS too_long
          FROM wamp.outbox
         WHERE outbox.position IS NULL AND outbox.set_aside IS NULL AND outbox.id > progress.floor
           -- What is left in the log comes before all that was written as a row: when events became rows again nobody had written
           -- into it that had not ended. It has to be the same statement that sees the row and this.
           AND (outbox.logged OR outbox.kind <> 'event' OR NOT (SELECT setting.log_ends FROM wamp.setting))
         ORDER BY outbox.id
         LIMIT rows_max
           FOR UPDATE SKIP LOCKED
    ), measured AS (
        SELECT candidate.*,
               sum(candidate.bytes) FILTER (WHERE NOT too_long) OVER before_and_this AS bytes_upto,
               count(*) FILTER (WHERE NOT too_long) OVER before_and_this AS place
          FROM candidate
        WINDOW before_and_this AS (ORDER BY candidate.id)
    ), taken AS (
        -- In order, up to the first that is too much: none is passed over.
        SELECT measured.id, too_long, CASE WHEN NOT too_long THEN progress.last + place END AS given
          FROM measured
         WHERE coalesce(bytes_upto, 0) <= bytes_max OR place = 1
    ), counted AS (
        UPDATE wamp.drain SET last = drain.last + (SELECT count(*) FROM taken WHERE NOT too_long),
                              floor = progress.floor, floor_next = progress.floor_next,
                              floor_horizon = progress.floor_horizon
    ), updated AS (
        UPDATE wamp.outbox
           SET position = taken.given,
               assigned_at = CASE WHEN NOT too_long THEN clock_timestamp() END,
               set_aside = CASE WHEN too_long
                   THEN format('it has %s bytes, and the router takes at most %s', outbox.bytes, row_bytes_max) END
          FROM taken
         WHERE outbox.id = taken.id
        RETURNING outbox.*
    )
    SELECT u.id, u.position, u.kind, u.uri,
           CASE WHEN u.set_aside IS NULL THEN u.args END, CASE WHEN u.set_aside IS NULL THEN u.kwargs END,
           CASE WHEN u.set_aside IS NULL THEN u.options END,
           u.bytes, u.session, u.depth, u.db_user, u.published_at, u.set_aside
      FROM updated AS u
     ORDER BY u.id;
END
$$;

-- Positions after `after` that are not marked sent, unchanged, in order. For a new leader, which begins with `after` = sent.
CREATE OR REPLACE FUNCTION wamp.unsent(epoch bigint, after bigint, rows_max integer, bytes_max bigint)
RETURNS TABLE (id bigint, "position" bigint, kind text, uri text, args json, kwargs json, options json, bytes integer, session bigint, depth integer, db_user text, published_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
BEGIN
    PERFORM wamp.require_leader(unsent.epoch);
    RETURN QUERY
    SELECT o.id, o.position, o.kind, o.uri, o.args, o.kwargs, o.options, o.bytes, o.session, o.depth, o.db_user, o.published_at
      FROM (SELECT outbox.*, sum(outbox.bytes) OVER (ORDER BY outbox.position) AS bytes_upto,
                   row_number() OVER (ORDER BY outbox.position) AS place
              FROM wamp.outbox
             WHERE outbox.position > greatest(unsent.after, (SELECT drain.sent FROM wamp.drain))
             ORDER BY outbox.position LIMIT rows_max) AS o
     WHERE o.bytes_upto <= bytes_max OR o.place = 1
     ORDER BY o.position;
END
$$;

-- Positions up to this one are dispatched. Feedback, where it is wanted, for single positions: how many receivers, and what
-- was wrong. If this is lost in a crash the positions are dispatched again, unchanged, so nobody waits for the disk.
CREATE OR REPLACE FUNCTION wamp.mark(epoch bigint, upto bigint, positions bigint[] DEFAULT NULL, receivers bigint[] DEFAULT NULL, errors text[] DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    UPDATE wamp.drain SET sent = greatest(sent, upto) WHERE drain.epoch = mark.epoch AND upto <= last;
    IF NOT FOUND THEN
        PERFORM wamp.require_leader(epoch);
        RAISE EXCEPTION 'position % is not assigned', upto USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF positions IS NOT NULL THEN
        UPDATE wamp.outbox SET sent_at = clock_timestamp(), receivers = word.receivers, error = word.error
          FROM unnest(mark.positions, mark.receivers, mark.errors) AS word (place, receivers, error)
         WHERE outbox.position = word.place AND outbox.position <= upto;
    END IF;
END
$$;

-- Takes rows out of the queue that the drainer cannot handle, so that the others go on.
CREATE OR REPLACE FUNCTION wamp.set_aside(epoch bigint, ids bigint[], reason text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    count bigint;
BEGIN
    PERFORM wamp.require_leader(epoch);
    UPDATE wamp.outbox SET set_aside = coalesce(reason, 'no reason given')
     WHERE id = ANY (ids) AND position IS NULL AND outbox.set_aside IS NULL;
    GET DIAGNOSTICS count = ROW_COUNT;
    RETURN count;
END
$$;

-- For the owner: puts a row that was set aside into the queue again.
CREATE OR REPLACE FUNCTION wamp.retry(id bigint) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- First, so that no claim passes over the row meanwhile.
    UPDATE wamp.drain SET floor = least(floor, retry.id - 1), floor_next = NULL;
    UPDATE wamp.outbox SET set_aside = NULL WHERE outbox.id = retry.id AND outbox.set_aside IS NOT NULL;
    RETURN FOUND;
END
$$;

-- The events after position `after`, up to `upto`, in order: what a subscriber has missed that resumes. WA002 if they are not
-- all here any more, so that a gap is never taken for silence. What could not be dispatched then is not shown now.
-- With `is_cut` there may be more than these rows.
CREATE OR REPLACE FUNCTION wamp.replay(after bigint, upto bigint DEFAULT NULL, topic text DEFAULT '', match text DEFAULT 'prefix', rows_max integer DEFAULT 500, bytes_max bigint DEFAULT 4194304)
RETURNS TABLE ("position" bigint, uri text, args json, kwargs json, options json, bytes integer, session bigint, depth integer, db_user text, published_at timestamptz, is_cut boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE
    progress wamp.drain;
    pattern text;
BEGIN
    SELECT * INTO progress FROM wamp.drain;
    IF replay.after < progress.pruned OR replay.after > progress.last OR replay.after IS NULL THEN
        RAISE EXCEPTION 'position % is not in the window', coalesce(replay.after::text, 'null') USING ERRCODE = 'WA002',
            DETAIL = format('The window reaches from %s to %s.', progress.pruned, progress.last),
            HINT = 'Read the state anew and go on without _after.';
    END IF;
    IF match = 'wildcard' THEN
        -- Every character that means something to a regular expression is taken as it is; an empty component is any.
        SELECT '^' || string_agg(CASE component WHEN '' THEN '[^.]+'
                                 ELSE regexp_replace(component, '([^[:alnum:]_])', '\\\1', 'g') END,
                                 '\.' ORDER BY number) || '$'
          INTO pattern
          FROM unnest(string_to_array(topic, '.')) WITH ORDINALITY AS list (component, number);
    END IF;
    RETURN QUERY
    SELECT o.position, o.uri, o.args, o.kwargs, o.options, o.bytes, o.session, o.depth, o.db_user, o.published_at,
           o.chosen = rows_max OR o.chosen > 1 AND o.chosen_bytes > replay.bytes_max
      FROM (SELECT chosen.*, sum(chosen.bytes) OVER (ORDER BY chosen.position) AS bytes_upto,
                   count(*) OVER () AS chosen, sum(chosen.bytes) OVER () AS chosen_bytes,
                   row_number() OVER (ORDER BY chosen.position) AS place
              FROM (SELECT outbox.* FROM wamp.outbox
                     WHERE outbox.position > replay.after AND outbox.position <= coalesce(replay.upto, progress.last)
                       AND outbox.kind = 'event' AND outbox.error IS NULL
                       AND CASE replay.match WHEN 'exact' THEN outbox.uri = replay.topic
                                             WHEN 'prefix' THEN starts_with(outbox.uri, replay.topic)
                                             WHEN 'wildcard' THEN outbox.uri ~ pattern END
                     ORDER BY outbox.position LIMIT rows_max) AS chosen) AS o
     WHERE o.bytes_upto <= replay.bytes_max OR o.place = 1
     ORDER BY o.position;
END
$$;

-- Positions after `pruned`, up to `last`, are here; up to `sent` they are dispatched.
CREATE OR REPLACE FUNCTION wamp.progress(OUT pruned bigint, OUT sent bigint, OUT last bigint, OUT epoch bigint, OUT leader text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT pruned, sent, last, epoch, leader FROM wamp.drain
$$;

-- The position up to which a snapshot has all: who reads the state, and this with it, goes on from there with `_after`.
CREATE OR REPLACE FUNCTION wamp.position() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT last FROM wamp.drain
$$;

CREATE OR REPLACE FUNCTION wamp.in_window(after bigint) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT after BETWEEN pruned AND last FROM wamp.drain
$$;

-- Where events are written into the log of the server and not into the outbox (log.sql): by which prefix they are known, and
-- whether no more are to come.
CREATE OR REPLACE FUNCTION wamp.log(OUT prefix text, OUT ends boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN log_is_on THEN log_prefix END, log_ends FROM wamp.setting
$$;

-- Puts events of the log into the outbox, in the order of their commits: [[commit, place, row], ...], `place` being that within
-- one transaction. Those that are there already are passed over: the server sends again what was not confirmed to it.
CREATE OR REPLACE FUNCTION wamp.feed(epoch bigint, messages json) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    progress wamp.drain;
    count bigint;
BEGIN
    PERFORM wamp.require_read_committed();
    SELECT * INTO progress FROM wamp.drain FOR UPDATE;
    IF progress.epoch <> feed.epoch THEN
        PERFORM wamp.require_leader(feed.epoch);
    END IF;
    -- The log is let go of once this is confirmed, whatever this role or database is set to.
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    PERFORM set_config('wamp.feeding', 'on', true);
    INSERT INTO wamp.outbox (logged, kind, uri, args, kwargs, options, bytes, session, depth, db_user, published_at)
    SELECT true, content ->> 'kind', content ->> 'uri',
           (content ->> 'args')::json, (content ->> 'kwargs')::json, (content ->> 'options')::json,
           (content ->> 'bytes')::integer, (content ->> 'session')::bigint, (content ->> 'depth')::integer,
           content ->> 'db_user', (content ->> 'published_at')::timestamptz
      FROM (SELECT number, (message ->> 0)::pg_lsn AS commit, (message ->> 1)::bigint AS place, message -> 2 AS content
              FROM json_array_elements(messages) WITH ORDINALITY AS list (message, number)) AS listed
     WHERE (commit, place) > (progress.log_commit, progress.log_place)
     ORDER BY number;
    GET DIAGNOSTICS count = ROW_COUNT;
    PERFORM set_config('wamp.feeding', '', true);
    UPDATE wamp.drain SET log_commit = last.commit, log_place = last.place
      FROM (SELECT (messages -> -1 ->> 0)::pg_lsn AS commit, (messages -> -1 ->> 1)::bigint AS place) AS last
     WHERE (last.commit, last.place) > (drain.log_commit, drain.log_place);
    RETURN count;
END
$$;

-- All that was in the log is in the outbox, and nothing more is to come: from here on rows have their turn. Not while one of those
-- that came by the log waits for its position. The slot is dropped in the same transaction: whoever wants events in the log again
-- waits for the end of that.
CREATE OR REPLACE FUNCTION wamp.close_log(epoch bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM wamp.require_leader(close_log.epoch);
    UPDATE wamp.setting SET log_is_on = false, log_ends = false
     WHERE log_ends AND NOT EXISTS (SELECT FROM wamp.outbox WHERE position IS NULL AND set_aside IS NULL AND logged);
END
$$;

-- Deletes what is sent and older than `keep`, or beyond the newest `rows_keep` positions: at most `rows_max` rows, and so much
-- again of each kind of leavings. Gives how many positions; call it again while that is `rows_max`.
CREATE OR REPLACE FUNCTION wamp.prune(epoch bigint, keep interval DEFAULT '10 minutes', rows_keep bigint DEFAULT 100000, rows_max integer DEFAULT 5000, leavings_keep interval DEFAULT '7 days', calls_keep interval DEFAULT '1 day')
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    progress wamp.drain;
    upto bigint;
    count bigint;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    SELECT * INTO progress FROM wamp.drain FOR UPDATE;
    IF progress.epoch <> prune.epoch THEN
        PERFORM wamp.require_leader(prune.epoch);
    END IF;
    -- Up to the last one of the batch before which all may go, so that the window has no holes.
    SELECT max(position) INTO upto
      FROM (SELECT position, bool_and(position <= progress.last - rows_keep OR assigned_at < clock_timestamp() - keep)
                             OVER (ORDER BY position) AS goes
              FROM (SELECT position, assigned_at FROM wamp.outbox
                     WHERE position > progress.pruned AND position <= progress.sent
                     ORDER BY position LIMIT rows_max) AS oldest) AS judged
     WHERE goes;
    DELETE FROM wamp.outbox WHERE position > progress.pruned AND position <= upto;
    GET DIAGNOSTICS count = ROW_COUNT;
    IF upto IS NOT NULL THEN
        UPDATE wamp.drain SET pruned = upto;
    END IF;
    DELETE FROM wamp.outbox WHERE id IN (
        SELECT id FROM wamp.outbox WHERE set_aside IS NOT NULL AND published_at < clock_timestamp() - leavings_keep LIMIT rows_max);
    DELETE FROM wamp.dead_letter WHERE id IN (
        SELECT id FROM wamp.dead_letter WHERE buried_at < clock_timestamp() - leavings_keep LIMIT rows_max);
    DELETE FROM wamp.call WHERE id IN (
        SELECT id FROM wamp.call WHERE called_at < clock_timestamp() - calls_keep LIMIT rows_max);
    RETURN count;
END
$$;

-- How much waits for a position, and for its dispatch; since when; and what was set aside. Counts no further than 1,000,000.
CREATE OR REPLACE FUNCTION wamp.backlog(OUT waiting bigint, OUT unsent bigint, OUT oldest timestamptz, OUT set_aside bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off AS $$
    SELECT (SELECT count(*) FROM (SELECT FROM wamp.outbox
                                            WHERE position IS NULL AND outbox.set_aside IS NULL
                                              AND id > (SELECT floor FROM wamp.drain) LIMIT 1000000) AS w),
           (SELECT last - sent FROM wamp.drain),
           least((SELECT published_at FROM wamp.outbox
                   WHERE position IS NULL AND outbox.set_aside IS NULL AND id > (SELECT floor FROM wamp.drain)
                   ORDER BY id LIMIT 1),
                 (SELECT published_at FROM wamp.outbox WHERE position > (SELECT sent FROM wamp.drain)
                   ORDER BY position LIMIT 1)),
           (SELECT count(*) FROM (SELECT FROM wamp.outbox WHERE outbox.set_aside IS NOT NULL LIMIT 1000000) AS s)
$$;

-- The oldest calls that nobody has answered and that are not `under_way` here, for the leader to make: at most so many and about
-- so many bytes, but one at least. What an earlier leader made and did not see answered comes again. `left_ms` is how long its
-- caller still waits; it is over at 0, and null is as long as the router gives it.
CREATE OR REPLACE FUNCTION wamp.open_calls(epoch bigint, under_way bigint[], rows_max integer, bytes_max bigint)
RETURNS TABLE (id bigint, procedure text, args json, kwargs json, db_user text, left_ms bigint, has_function boolean, depth integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
BEGIN
    PERFORM wamp.require_leader(open_calls.epoch);
    RETURN QUERY
    SELECT o.id, o.procedure, o.args, o.kwargs, o.db_user,
           -- `greatest` passes over nulls.
           CASE WHEN o.timeout_ms IS NOT NULL
                THEN greatest(0, o.timeout_ms - (extract(epoch FROM clock_timestamp() - o.called_at) * 1000)::bigint) END,
           o.on_result IS NOT NULL, o.depth
      FROM (SELECT call.*, sum(call.bytes) OVER (ORDER BY call.id) AS bytes_upto, row_number() OVER (ORDER BY call.id) AS place
              FROM wamp.call
             WHERE call.finished_at IS NULL AND call.id <> ALL (under_way)
             ORDER BY call.id LIMIT rows_max) AS o
     WHERE o.bytes_upto <= bytes_max OR o.place = 1
     ORDER BY o.id;
END
$$;

-- The answer to a call that a statement has made. Gives the function that wants it, once: a call may be answered twice when
-- it was dispatched again.
CREATE OR REPLACE FUNCTION wamp.finish_call(id bigint, args jsonb, kwargs jsonb, error text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    function text;
BEGIN
    UPDATE wamp.call
       SET finished_at = clock_timestamp(), args = NULL, kwargs = NULL,
           outcome = jsonb_build_object('args', coalesce(finish_call.args, '[]'), 'kwargs', coalesce(finish_call.kwargs, '{}'))
                     || CASE WHEN error IS NULL THEN '{}' ELSE jsonb_build_object('error', error) END
     WHERE call.id = finish_call.id AND finished_at IS NULL
    RETURNING on_result INTO function;
    RETURN function;
END
$$;

-- Keeps an event whose function has failed for good.
CREATE OR REPLACE FUNCTION wamp.bury(function text, topic text, args json, kwargs json, details json, error text, attempts integer)
RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO wamp.dead_letter (function, topic, args, kwargs, details, error, attempts)
    VALUES (function, topic, args, kwargs, details, error, attempts) RETURNING id
$$;

-- For the owner, after a backup has been restored: goes on with positions that no subscriber can have seen.
CREATE OR REPLACE FUNCTION wamp.advance_positions(beyond bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE wamp.drain SET last = beyond, sent = beyond, pruned = beyond WHERE sent = last AND last <= beyond;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'positions beyond % are assigned already, or some are not sent', beyond
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    DELETE FROM wamp.outbox WHERE position IS NOT NULL;
END
$$;
