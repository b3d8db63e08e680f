"""Which address is answered by whom."""

from tornado.routing import URLSpec
from tornado.web import url

from workers.monitor import (
    study_actions,
    study_pages,
    task_actions,
    task_pages,
)

PK = r"([0-9]{1,18})"


def page_routes() -> list[URLSpec]:
    """Return the pages and what they ask for."""
    return [
        url(r"/dicom", task_pages.QueuesPage, name="dicomq-overview"),
        url(r"/dicom/queues", task_pages.QueuesPage, name="dicomq-queues"),
        url(r"/dicom/studies", study_pages.StudiesPage, name="dicomq-studies"),
        url(r"/dicom/studies/([0-9.]{1,64})", study_pages.StudyPage, name="dicomq-study"),
        url(r"/dicom/destinations", task_pages.QueuesPage, name="dicomq-destinations"),
        url(r"/dicom/rules", task_pages.QueuesPage, name="dicomq-rules"),
        url(rf"/dicom/tasks/{PK}", task_pages.TaskPage, name="dicomq-task"),
        url(r"/dicom/tasks\.csv", task_pages.TasksCsv),
        url(r"/dicom/api/tasks/count", task_actions.TaskCount),
        url(r"/dicom/api/tasks/preview", task_actions.BulkPreview),
        url(r"/dicom/api/tasks/bulk", task_actions.BulkStart),
        url(rf"/dicom/api/tasks/{PK}/(cancel|reschedule|delete)", task_actions.TaskAction),
        url(r"/dicom/api/studies/export", study_actions.ExportStudies),
        url(r"/dicom/api/studies/retrieve", study_actions.RetrieveStudy),
        url(r"/dicom/api/bulk/([0-9]+)", task_actions.BulkFollow),
        url(r"/dicom/api/bulk/([0-9]+)/stop", task_actions.BulkStop),
    ]
