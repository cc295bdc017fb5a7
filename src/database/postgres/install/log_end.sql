-- Events are rows of the outbox again. The router reads what is in the log, and drops the slot. This waits for all transactions
-- that have published, and those that come wait for it: so all that is in the log was committed before any row that comes.
-- While it waits nobody publishes: so not for long.
SET LOCAL lock_timeout = '30s';
DROP TRIGGER IF EXISTS to_log ON wamp.outbox;
UPDATE wamp.setting SET log_ends = true WHERE log_is_on;
SELECT pg_catalog.pg_notify('wamp', 'log');
