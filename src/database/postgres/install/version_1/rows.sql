-- Changes of rows as events.

-- {column: value} of a row. `to_jsonb` calls casts to json that the owner of a column's type has made, and would call them
-- with the rights of this schema's owner. So only built-in types, and domains over them, go through it. Of all other types
-- (enums, composites, those of extensions) the text is taken, which no user can change; it is what to_jsonb gives for enums.
CREATE OR REPLACE FUNCTION wamp.row_values(relation oid, content record, columns text[]) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    expressions text;
    result jsonb;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute
                    WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped AND atttypid >= 16384) THEN
        result := to_jsonb(content);
        IF columns <> '{}' THEN
            SELECT coalesce(jsonb_object_agg(key, value), '{}') INTO result FROM jsonb_each(result) WHERE key = ANY (columns);
        END IF;
        RETURN result;
    END IF;
    -- The statement that fires the trigger holds a lock under which no column changes its type.
    SELECT string_agg(
               CASE WHEN atttypid < 16384 THEN format('(%L, to_jsonb(($1).%I))', attname, attname)
                    WHEN typtype = 'd' AND typbasetype < 16384
                    THEN format('(%L, to_jsonb(($1).%I::%s))', attname, attname, format_type(typbasetype, typtypmod))
                    ELSE format('(%L, CASE WHEN ($1).%I IS NOT DISTINCT FROM NULL THEN NULL ELSE to_jsonb(format(''%%s'', ($1).%I)) END)',
                                attname, attname, attname)
               END, ', ' ORDER BY attnum)
      INTO expressions
      FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
     WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped AND (columns = '{}' OR attname = ANY (columns));
    IF expressions IS NULL THEN
        RETURN '{}';
    END IF;
    EXECUTE 'SELECT jsonb_object_agg(name, coalesce(value, ''null'')) FROM (VALUES ' || expressions || ') AS pair (name, value)'
       INTO result USING content;
    RETURN result;
END
$$;

-- Trigger: publishes <topic>.on_insert, .on_update or .on_delete for a row, with kwargs {op, table, new, old}. Arguments: the
-- topic, then the columns, all of them if none is named. An update that changes none of these is no news.
--
-- If wamp.watch made the trigger, its author was allowed to publish; any other needs that whoever changes the row is.
CREATE OR REPLACE FUNCTION wamp.notify_row() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    topic text := TG_ARGV[0];
    chosen text[] := coalesce(TG_ARGV[1:], '{}');
    news jsonb := jsonb_build_object('op', lower(TG_OP), 'table', format('%I.%I', TG_TABLE_SCHEMA, TG_TABLE_NAME));
    content jsonb := '{}';
BEGIN
    IF TG_LEVEL <> 'ROW' OR TG_WHEN <> 'AFTER' OR topic IS NULL THEN
        RAISE EXCEPTION 'the trigger % is not made for wamp.notify_row', quote_ident(TG_NAME)
            USING ERRCODE = 'trigger_protocol_violated',
                  HINT = 'Write AFTER INSERT OR UPDATE OR DELETE ... FOR EACH ROW EXECUTE FUNCTION wamp.notify_row(''topic''), or use wamp.watch.';
    END IF;
    topic := topic || '.on_' || lower(TG_OP);
    IF NOT EXISTS (
        SELECT FROM wamp.watched
         WHERE watched.topic = TG_ARGV[0] AND watched.columns = chosen
           AND (watched.relation = TG_RELID
                -- Rows of a partition are rows of the table that is watched.
                OR watched.relation IN (SELECT pg_partition_ancestors(TG_RELID)))
    ) THEN
        PERFORM wamp.require_uri(topic, 'exact'), wamp.require('publish', topic);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        content := content || jsonb_build_object('new', wamp.row_values(TG_RELID, NEW, chosen));
    END IF;
    IF TG_OP <> 'INSERT' THEN
        content := content || jsonb_build_object('old', wamp.row_values(TG_RELID, OLD, chosen));
    END IF;
    IF TG_OP = 'UPDATE' AND content -> 'new' = content -> 'old' THEN
        RETURN NULL;
    END IF;
    -- The statement of an application must not fail because a row is long: subscribers are told that it changed.
    IF octet_length(content::text) > (SELECT event_bytes_max - 2048 FROM wamp.setting) THEN
        content := '{"too_long": true}';
    END IF;
    PERFORM wamp.enqueue('event', topic, NULL, news || content, NULL);
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION wamp.trigger_name(topic text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    -- A topic may be longer than a name.
    SELECT 'wamp_notify_' || md5(topic)
$$;

-- Remembers a watch for those who may publish its events and put triggers on the table.
CREATE OR REPLACE FUNCTION wamp.record_watch(relation regclass, topic text, columns text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    unknown text;
BEGIN
    PERFORM wamp.require_uri(topic || suffix, 'exact'), wamp.require('publish', topic || suffix)
       FROM unnest('{.on_insert,.on_update,.on_delete}'::text[]) AS suffix;
    IF NOT has_table_privilege(session_user, relation, 'TRIGGER') THEN
        RAISE EXCEPTION 'the database user % may not put triggers on %', quote_ident(session_user), relation
            USING ERRCODE = 'insufficient_privilege',
                  HINT = format('GRANT TRIGGER ON %s TO %I;', relation, session_user);
    END IF;
    SELECT name INTO unknown FROM unnest(columns) AS name
     WHERE NOT EXISTS (SELECT FROM pg_attribute
                        WHERE attrelid = relation AND attname = name AND attnum > 0 AND NOT attisdropped);
    IF FOUND THEN
        RAISE EXCEPTION '% has no column %', relation, coalesce(quote_ident(unknown), 'null')
            USING ERRCODE = 'undefined_column';
    END IF;
    -- Numbers of tables that are gone come again one day.
    DELETE FROM wamp.watched WHERE NOT EXISTS (SELECT FROM pg_class WHERE oid = watched.relation);
    INSERT INTO wamp.watched (relation, topic, columns, watched_by) VALUES (relation, topic, columns, session_user)
    ON CONFLICT ON CONSTRAINT watched_pkey
    DO UPDATE SET columns = excluded.columns, watched_by = excluded.watched_by, watched_at = clock_timestamp();
END
$$;

CREATE OR REPLACE FUNCTION wamp.forget_watch(relation regclass, topic text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT pg_has_role(session_user, (SELECT relowner FROM pg_class WHERE oid = relation), 'USAGE') THEN
        RAISE EXCEPTION 'only the owner of % may do this', relation USING ERRCODE = 'insufficient_privilege';
    END IF;
    DELETE FROM wamp.watched WHERE watched.relation = forget_watch.relation AND watched.topic = forget_watch.topic;
    RETURN FOUND;
END
$$;

-- Publishes what happens to the rows of a table. With `columns` only these are in the events. Once more: replaces.
-- Runs with the rights of its caller, who needs the right to put triggers on the table.
CREATE OR REPLACE FUNCTION wamp.watch(tbl regclass, topic text, columns text[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    arguments text;
BEGIN
    PERFORM wamp.record_watch(tbl, topic, coalesce(columns, '{}'));
    SELECT string_agg(quote_literal(argument), ', ' ORDER BY number) INTO arguments
      FROM unnest(topic || coalesce(columns, '{}')) WITH ORDINALITY AS list (argument, number);
    EXECUTE format(
        'CREATE OR REPLACE TRIGGER %I AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION wamp.notify_row(%s)',
        wamp.trigger_name(topic), tbl, arguments);
END
$$;

-- Says whether there was such a watch.
CREATE OR REPLACE FUNCTION wamp.unwatch(tbl regclass, topic text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', wamp.trigger_name(topic), tbl);
    RETURN wamp.forget_watch(tbl, topic);
END
$$;
