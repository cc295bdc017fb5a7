-- Events are rows of the outbox again. The router reads what is in the log, and drops the slot.
DROP TRIGGER IF EXISTS to_log ON wamp.outbox;
UPDATE wamp.setting SET log_ends = true WHERE log_prefix IS NOT NULL;
