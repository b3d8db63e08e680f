-- Counts of waiting tasks by queue and destination are read from the index alone.
DROP INDEX task_waiting;
CREATE INDEX task_waiting ON task (device_name, queue_name, (coalesce(remote_aet, '')), scheduled_time, pk)
    INCLUDE (status, remote_aet)
    WHERE status IN ('SCHEDULED', 'SCHEDULED FOR RETRY') AND dispatched_time IS NULL;
-- So are the batches, with all that a list of them shows.
DROP INDEX task_batch;
CREATE INDEX task_batch ON task (batch_id, status, exporter_id, device_name)
    INCLUDE (created_time, updated_time, scheduled_time)
    WHERE batch_id IS NOT NULL;
