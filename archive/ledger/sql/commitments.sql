-- stage_detail --
-- What an STGCMT_SCU task asks for.
INSERT INTO stgcmt_task (task_fk, export_task_fk, export_round, held_by_exporter, again_of_fk, rung, after_committed,
                         verdict)
VALUES (%(task_pk)s, %(export_task_pk)s, %(export_round)s, %(held_by_exporter)s, %(again_of)s, %(rung)s,
        %(after_committed)s::jsonb, %(verdict)s);

-- detail --
-- What an STGCMT_SCU task asks for.
SELECT export_task_fk, export_round, held_by_exporter, again_of_fk, rung, after_committed, verdict
FROM stgcmt_task WHERE task_fk = %(task_pk)s;

-- clear_verdict --
-- A task whose verdict was said asks anew when somebody reschedules it.
UPDATE stgcmt_task SET verdict = NULL, rung = 1 WHERE task_fk = %(task_pk)s;

-- to_request --
-- Instances whose commitment a task has still to ask for, and whether they were sent again for want of it.
SELECT i.pk, i.version, i.sop_class_uid, i.sop_instance_uid,
       EXISTS (SELECT FROM commitment_instance o JOIN commitment c ON c.pk = o.commitment_fk
               WHERE o.instance_fk = i.pk AND o.instance_version = i.version AND o.step = 'RESEND'
                 AND c.remote_aet = k.remote_aet) AS resent
FROM task k JOIN stgcmt_task d ON d.task_fk = k.pk
     JOIN study t ON t.study_instance_uid = k.study_instance_uid
     JOIN series s ON s.study_fk = t.pk JOIN instance i ON i.series_fk = s.pk
WHERE k.pk = %(task_pk)s
  AND (k.series_instance_uid IS NULL OR s.series_instance_uid = k.series_instance_uid)
  AND (k.sop_instance_uid IS NULL OR i.sop_instance_uid = k.sop_instance_uid)
  AND CASE
      WHEN d.again_of_fk IS NOT NULL THEN EXISTS (
          SELECT FROM commitment_instance o
          WHERE o.commitment_fk = d.again_of_fk AND o.instance_fk = i.pk AND o.instance_version = i.version
            AND o.step = CASE WHEN d.rung > 1 THEN 'ASK AGAIN' ELSE 'GIVE UP' END AND o.committed IS NOT TRUE)
          AND NOT is_committed(i.pk, i.version, k.remote_aet)
      WHEN d.export_task_fk IS NOT NULL THEN EXISTS (
          SELECT FROM delivery v
          WHERE v.task_fk = d.export_task_fk AND v.round = d.export_round AND v.instance_fk = i.pk AND v.delivered
            AND v.instance_version = i.version)
      WHEN d.held_by_exporter IS NOT NULL THEN EXISTS (
          SELECT FROM delivery v
          WHERE v.instance_fk = i.pk AND v.exporter_id = d.held_by_exporter AND v.delivered
            AND v.instance_version = i.version)
      ELSE true END
  AND NOT EXISTS (
      SELECT FROM commitment_instance o JOIN commitment c ON c.pk = o.commitment_fk
      WHERE o.instance_fk = i.pk AND o.instance_version = i.version AND c.task_fk = k.pk
        AND c.task_round = k.round AND c.accepted_time IS NOT NULL)
ORDER BY s.pk, i.pk;

-- open_request --
-- Remember a request before it is sent: its report may be faster than its response. It takes the place of requests of
-- the same task whose response never came.
WITH replaced AS (
    UPDATE commitment SET status = 'FAILED', escalated_time = clock_timestamp()
    WHERE task_fk = %(task_pk)s AND accepted_time IS NULL AND status = 'PENDING'
), opened AS (
    INSERT INTO commitment (transaction_uid, task_fk, task_round, device_name, local_aet, remote_aet, exporter_id,
                            batch_id, study_instance_uid, rung, retrieve_aet, after_committed, num_instances)
    SELECT %(transaction_uid)s, k.pk, k.round, k.device_name, k.local_aet, k.remote_aet, k.exporter_id, k.batch_id,
           k.study_instance_uid, %(rung)s, %(retrieve_aet)s, d.after_committed, cardinality(%(instance_pks)s::bigint[])
    FROM task k JOIN stgcmt_task d ON d.task_fk = k.pk WHERE k.pk = %(task_pk)s
    RETURNING pk
), listed AS (
    INSERT INTO commitment_instance (commitment_fk, instance_fk, instance_version, sop_instance_uid)
    SELECT opened.pk, r.instance_pk, r.version, r.uid
    FROM opened, unnest(%(instance_pks)s::bigint[], %(versions)s::integer[], %(uids)s::text[])
                     AS r (instance_pk, version, uid)
)
SELECT pk FROM opened;

-- accept_request --
-- The peer took a request: from now on its report is waited for.
UPDATE commitment
SET accepted_time = clock_timestamp(),
    deadline = CASE WHEN status = 'PENDING' THEN clock_timestamp() + make_interval(secs => %(deadline_s)s)
                    ELSE deadline END
WHERE pk = %(pk)s;

-- refuse_request --
-- The peer refused a request: there will be no report.
DELETE FROM commitment WHERE pk = %(pk)s AND reports = 0;

-- record_report --
-- Enter a report; see the function enter_commitment_report.
SELECT (r.request).pk, r.newly_committed, r.unknown, r.late, (r.request).status, (r.request).num_instances,
       (r.request).num_committed, (r.request).num_failed, (r.request).remote_aet, (r.request).study_instance_uid,
       (r.request).exporter_id, (r.request).after_committed
FROM enter_commitment_report(%(transaction_uid)s, %(committed)s::text[], %(aets)s::text[], %(failed)s::text[],
                             %(reasons)s::integer[], %(may_pass)s::integer[]) r;

-- is_study_committed --
-- Whether an SCP keeps all that an exporter delivered of a study.
SELECT NOT EXISTS (
    SELECT FROM study t JOIN series s ON s.study_fk = t.pk JOIN instance i ON i.series_fk = s.pk
    WHERE t.study_instance_uid = %(study)s
      AND EXISTS (SELECT FROM delivery d WHERE d.instance_fk = i.pk AND d.exporter_id = %(exporter_id)s
                    AND d.delivered AND d.instance_version = i.version)
      AND NOT is_committed(i.pk, i.version, %(remote_aet)s));

-- due --
-- Requests whose deadline is over; locked, so that one process deals with each.
SELECT pk, task_fk, device_name, local_aet, remote_aet, exporter_id, batch_id, study_instance_uid, rung,
       after_committed, reports, requested_time
FROM commitment WHERE device_name = %(device_name)s AND deadline <= clock_timestamp()
ORDER BY deadline LIMIT %(limit)s FOR UPDATE SKIP LOCKED;

-- open_instances --
-- What of a request nobody has committed, with the latest reason; rejected instances and older versions do not count.
SELECT o.instance_fk, o.sop_instance_uid, o.failure_reason,
       EXISTS (SELECT FROM delivery d WHERE d.instance_fk = i.pk AND d.exporter_id = %(exporter_id)s AND d.delivered)
FROM commitment_instance o JOIN instance i ON i.pk = o.instance_fk AND i.version = o.instance_version
WHERE o.commitment_fk = %(pk)s AND o.committed IS NOT TRUE AND i.series_fk IS NOT NULL
  AND NOT is_committed(i.pk, i.version, %(remote_aet)s)
ORDER BY o.instance_fk;

-- note_step --
-- Note what was done about instances of a request that was due.
UPDATE commitment_instance SET step = %(step)s WHERE commitment_fk = %(pk)s AND instance_fk = ANY(%(instance_pks)s);

-- close_due --
-- A request that was due has been dealt with.
UPDATE commitment
SET escalated_time = clock_timestamp(), deadline = NULL,
    status = CASE WHEN %(status)s::text IS NOT NULL THEN %(status)s::text
                  WHEN status = 'PENDING' AND num_committed > 0 THEN 'WARNING'
                  WHEN status = 'PENDING' THEN 'FAILED'
                  ELSE status END
WHERE pk = %(pk)s;

-- export_again --
-- Make an exporter deliver some instances again; see the function of that name.
SELECT export_again(%(intent)s::jsonb, %(study)s, %(instance_pks)s::bigint[]);

-- stage_verification --
-- Stage the verification and report that a request of another AE demands.
WITH staged AS (
    INSERT INTO task (kind, queue_name, device_name, scheduled_time, local_aet, remote_aet, study_instance_uid, actor,
                      reason)
    VALUES ('STGCMT_SCP', %(queue_name)s, %(device_name)s, clock_timestamp(), %(local_aet)s, %(remote_aet)s,
            (SELECT t.study_instance_uid FROM instance i JOIN series s ON s.pk = i.series_fk
                                              JOIN study t ON t.pk = s.study_fk
             WHERE i.sop_instance_uid = (%(sop_instance_uids)s::text[])[1]),
            %(remote_aet)s, 'commitment requested')
    RETURNING pk
), detail AS (
    INSERT INTO stgcmt_scp_task (task_fk, transaction_uid, sop_class_uids, sop_instance_uids, same_association_until)
    SELECT pk, %(transaction_uid)s, %(sop_class_uids)s, %(sop_instance_uids)s,
           CASE WHEN %(same_association_s)s > 0
                THEN clock_timestamp() + make_interval(secs => %(same_association_s)s) END
    FROM staged
)
SELECT pk FROM staged;

-- verification --
-- What an STGCMT_SCP task has to verify.
SELECT transaction_uid, sop_class_uids, sop_instance_uids FROM stgcmt_scp_task WHERE task_fk = %(task_pk)s;

-- note_verification --
-- How many instances a report will say are not committed.
UPDATE stgcmt_scp_task SET num_failed = %(num_failed)s WHERE task_fk = %(task_pk)s;

-- offer_report --
-- Offer a report to the process that holds the association of its request; no row: nobody holds it (any longer).
UPDATE stgcmt_scp_task SET report = %(report)s::jsonb, taken_time = NULL, answered_status = NULL
WHERE task_fk = %(task_pk)s AND same_association_until > clock_timestamp()
RETURNING true;

-- take_report --
-- Take a report that is offered; whoever takes it sends it.
UPDATE stgcmt_scp_task SET taken_time = clock_timestamp()
WHERE task_fk = %(task_pk)s AND report IS NOT NULL AND taken_time IS NULL AND same_association_until > clock_timestamp()
RETURNING transaction_uid, report;

-- answer_report --
-- Note how a report was answered on the association of its request.
UPDATE stgcmt_scp_task SET answered_status = %(status)s, report = NULL, same_association_until = NULL
WHERE task_fk = %(task_pk)s AND taken_time IS NOT NULL AND same_association_until IS NOT NULL;

-- end_hold --
-- The association of a request is over, or nothing more is sent on it.
UPDATE stgcmt_scp_task SET report = NULL, same_association_until = NULL
WHERE task_fk = %(task_pk)s AND same_association_until IS NOT NULL;

-- offer_state --
-- What became of an offered report: whether nobody holds the association any more, the status of its response, whether
-- it is too late to take it, and whether whoever took it should have had its answer by now.
SELECT same_association_until IS NULL, answered_status,
       taken_time IS NULL AND same_association_until <= clock_timestamp(),
       taken_time < clock_timestamp() - make_interval(secs => %(answer_s)s)
FROM stgcmt_scp_task WHERE task_fk = %(task_pk)s;

-- withdraw_report --
-- Withdraw a report that nobody took, or whose answer is overdue; no row: somebody was faster.
UPDATE stgcmt_scp_task SET report = NULL, same_association_until = NULL
WHERE task_fk = %(task_pk)s AND same_association_until IS NOT NULL
  AND (taken_time IS NULL OR taken_time < clock_timestamp() - make_interval(secs => %(answer_s)s))
RETURNING true;

-- holdings --
-- What the archive has of some instances: one row for each copy, one without a path where there is none.
SELECT r.uid, i.sop_class_uid, i.external_retrieve_aet, i.retrieve_aets, l.storage_id, l.storage_path,
       l.transfer_syntax_uid, l.object_size, l.dataset_offset, l.digest
FROM unnest(%(uids)s::text[]) WITH ORDINALITY r (uid, number)
     JOIN instance i ON i.sop_instance_uid = r.uid AND i.series_fk IS NOT NULL
     LEFT JOIN location l ON l.instance_fk = i.pk
ORDER BY r.number, l.pk;

-- committed_by --
-- Which of some instances every one of some exporters' commitment SCPs keeps in their present version.
SELECT i.sop_instance_uid
FROM unnest(%(uids)s::text[]) r (uid) JOIN instance i ON i.sop_instance_uid = r.uid AND i.series_fk IS NOT NULL
WHERE NOT EXISTS (
    SELECT FROM unnest(%(exporter_ids)s::text[]) e (exporter_id)
    WHERE coalesce((
        SELECT o.committed FROM commitment_instance o JOIN commitment c ON c.pk = o.commitment_fk
        WHERE o.instance_fk = i.pk AND o.instance_version = i.version AND o.committed IS NOT NULL
          AND c.exporter_id = e.exporter_id
        ORDER BY c.reported_time DESC, c.pk DESC LIMIT 1), false) IS FALSE);

-- of_study --
-- Requests for the commitment of a study, oldest first.
SELECT pk, transaction_uid, task_fk, exporter_id, remote_aet, status, rung, num_instances, num_committed, num_failed,
       reports, requested_time, accepted_time, reported_time, deadline, escalated_time
FROM commitment WHERE study_instance_uid = %(study)s ORDER BY pk;

-- gauges --
-- Requests that are open, overdue and given up, for alerts.
SELECT count(*) FILTER (WHERE status = 'PENDING' AND deadline IS NOT NULL),
       count(*) FILTER (WHERE deadline < clock_timestamp()),
       count(*) FILTER (WHERE EXISTS (
           SELECT FROM commitment_instance o
           WHERE o.commitment_fk = c.pk AND o.step = 'GIVE UP' AND o.committed IS NOT TRUE))
FROM commitment c WHERE device_name = %(device_name)s AND status <> 'COMPLETED';

-- purge --
-- Delete requests that were completed longer ago than they are kept and that are no evidence any more: each of their
-- instances was replaced, or a later request says that the same archive keeps it.
WITH old AS (
    SELECT c.pk FROM commitment c
    WHERE c.device_name = %(device_name)s AND c.status = 'COMPLETED'
      AND c.reported_time < clock_timestamp() - make_interval(secs => %(older_than_s)s)
      AND NOT EXISTS (
          SELECT FROM commitment_instance o JOIN instance i ON i.pk = o.instance_fk AND i.version = o.instance_version
          WHERE o.commitment_fk = c.pk AND NOT EXISTS (
              SELECT FROM commitment_instance n JOIN commitment k ON k.pk = n.commitment_fk
              WHERE n.instance_fk = o.instance_fk AND n.instance_version = o.instance_version AND n.committed
                AND k.remote_aet = c.remote_aet AND k.pk > c.pk))
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM commitment c USING old WHERE c.pk = old.pk;
