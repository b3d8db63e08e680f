-- Retrieves are looked for by where they bring their objects (DestinationAET of /monitor/retrieve).
CREATE INDEX retrieve_task_destination ON retrieve_task (destination_aet, task_fk);
