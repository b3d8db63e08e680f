-- ask_for_reload --
-- Have every process that listens read the configuration now.
SELECT pg_notify('dicomq_reload', '');
