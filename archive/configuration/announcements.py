"""What an AE announces of what it receives, as the ledger needs it: pure."""

from archive.configuration.descriptors import IanTrigger, NetworkAE, Snapshot
from archive.model.entities import Announcements

IAN_QUEUE = "IANSCU"


def announcements(snapshot: Snapshot, ae: NetworkAE) -> Announcements | None:
    """Return what is announced of objects and procedure steps that `ae` receives.

    An AE's attributes go before its device's. None without triggers or destinations: nothing is
    announced then, whatever the time-outs say.
    """
    triggers = frozenset(ae.ian_triggers)
    if not triggers or not ae.ian_destinations:
        return None
    return Announcements(
        device_name=snapshot.device.name,
        local_aet=ae.title,
        queue_name=IAN_QUEUE,
        destinations=tuple(dict.fromkeys(ae.ian_destinations)),
        retrieve_aets=ae.retrieve_aets or snapshot.device.retrieve_aets or (ae.title,),
        study_delay_s=ae.ian_delay_s if IanTrigger.STUDY_RECEIVED in triggers else None,
        first_object=IanTrigger.FIRST_OBJECT_OF_STUDY_RECEIVED in triggers,
        rejections=IanTrigger.REJECTION_NOTE_RECEIVED in triggers,
        procedure_steps=IanTrigger.MPPS_RECEIVED in triggers,
        timeout_s=ae.ian_timeout_s,
        on_timeout=ae.ian_on_timeout,
    )
