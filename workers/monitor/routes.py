"""Which address is answered by whom."""

from tornado.routing import URLSpec
from tornado.web import url

from workers.monitor import (
    destination_pages,
    overview,
    rule_pages,
    study_actions,
    study_pages,
    task_actions,
    task_pages,
)

PK = r"([0-9]{1,18})"
NAME = r"([^/]{1,192})"


def page_routes() -> list[URLSpec]:
    """Return the pages and what they ask for."""
    return [
        url(r"/dicom", overview.OverviewPage, name="dicomq-overview"),
        url(r"/dicom/queues", task_pages.QueuesPage, name="dicomq-queues"),
        url(r"/dicom/studies", study_pages.StudiesPage, name="dicomq-studies"),
        url(r"/dicom/studies/([0-9.]{1,64})", study_pages.StudyPage, name="dicomq-study"),
        url(r"/dicom/destinations", destination_pages.DestinationsPage, name="dicomq-destinations"),
        url(r"/dicom/rules", rule_pages.RulesPage, name="dicomq-rules"),
        url(rf"/dicom/tasks/{PK}", task_pages.TaskPage, name="dicomq-task"),
        url(r"/dicom/tasks\.csv", task_pages.TasksCsv),
        url(r"/dicom/api/tasks/count", task_actions.TaskCount),
        url(r"/dicom/api/tasks/preview", task_actions.BulkPreview),
        url(r"/dicom/api/tasks/bulk", task_actions.BulkStart),
        url(rf"/dicom/api/tasks/{PK}/(cancel|reschedule|delete)", task_actions.TaskAction),
        url(
            rf"/dicom/api/(queues|destinations)/{NAME}/(pause|resume)", destination_pages.GateAction
        ),
        url(rf"/dicom/api/destinations/{NAME}/echo", destination_pages.Echo),
        url(r"/dicom/api/dry-run/(header|received|ldif)", rule_pages.DryRun),
        url(r"/dicom/api/studies/count", study_actions.StudyCount),
        url(r"/dicom/api/studies/export", study_actions.ExportStudies),
        url(r"/dicom/api/studies/find", study_actions.FindStudies),
        url(r"/dicom/api/studies/retrieve", study_actions.RetrieveStudies),
        url(r"/dicom/api/bulk/([0-9]+)", task_actions.BulkFollow),
        url(r"/dicom/api/bulk/([0-9]+)/stop", task_actions.BulkStop),
    ]
