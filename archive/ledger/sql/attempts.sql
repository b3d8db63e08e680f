-- claim --
-- Claims of several hints; those missing from the answer have to be claimed alone.
SELECT * FROM claim_tasks(%(pks)s, %(attempts)s, %(worker)s, make_interval(secs => %(lease_s)s));

-- finish --
-- Results of several attempts; those missing from the answer have to be finished alone.
SELECT finished_pk, finished_status
FROM finish_tasks(%(pks)s, %(attempts)s, %(statuses)s, %(failed)s, %(delays)s, %(errors)s, %(outcomes)s, %(actor)s);
