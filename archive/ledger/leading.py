"""What leading archives answered, who waits for it, and what it changed.

The answers stand in PostgreSQL and not in a cache of the broker: the SCP, which never talks to
the broker, needs them as much as the workers do, single flight is a unique index over the tasks,
and a lost cache would cost every waiting retrieve a query. Looking one up is one indexed read.
An answer may be "no such study"; that the archive could not be asked is kept for a short time
only and is never taken for that.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb
from pydicom.dataset import Dataset

from archive.ledger.connection import Transaction
from archive.ledger.queries import load_queries
from archive.model.coercion import AnswerKind, LeadingAnswer
from archive.model.entities import StoredFile

LEADING_CHANNEL = "dicomq_leading"
_UNBOUNDED_STALE_S = 300.0
LEADING_QUEUE = "LeadingCFind"


@dataclass(frozen=True, slots=True)
class LeadingStudy:
    """A study at a leading archive, and which of our AEs asks for it."""

    leading_aet: str
    study_instance_uid: str
    local_aet: str
    device_name: str


@dataclass(frozen=True, slots=True)
class Freshness:
    """How long answers hold, in seconds; None for ever.

    Attributes
    ----------
    stale_s
        dcmLeadingCFindSCPQueryCacheStaleTimeout.
    negative_s
        How long a failure is remembered.
    size
        dcmLeadingCFindSCPQueryCacheSize, 0 for any number of answers.
    """

    stale_s: float | None = None
    negative_s: float = 60.0
    size: int = 10

    @classmethod
    def of(cls, stale_s: float | None, size: int = 10) -> "Freshness":
        """Return it for what the directory says; a stale time-out of 0 means never.

        An unbounded number of answers (0) is not kept for ever: five minutes, if nothing is said.
        """
        unbounded = size <= 0
        return cls(stale_s or (_UNBOUNDED_STALE_S if unbounded else None), size=max(0, size))


@dataclass(frozen=True, slots=True)
class PendingCoercion:
    """A received object that waits for a leading archive's answer.

    Attributes
    ----------
    coercions
        What was changed in it already.
    """

    instance_pk: int
    policy: str
    coercions: dict[str, Any] | None
    calling_aet: str
    file: StoredFile


def answer(
    tx: Transaction, leading_aet: str, study: str, freshness: Freshness
) -> LeadingAnswer | None:
    """Return the answer of a leading archive, None when there is none that still holds."""
    parameters = {
        "leading_aet": leading_aet,
        "study": study,
        "stale_s": freshness.stale_s or None,
        "negative_s": freshness.negative_s,
    }
    row = tx.execute(load_queries("leading")["answer"], parameters).fetchone()
    if row is None:
        return None
    attributes, error = row
    if attributes is None:
        return LeadingAnswer(AnswerKind.FAILED, message=str(error))
    tx.execute(load_queries("leading")["touch"], parameters)
    if attributes == "{}":
        return LeadingAnswer(AnswerKind.NO_MATCH)
    return LeadingAnswer(AnswerKind.FOUND, Dataset.from_json(attributes))


def demand(tx: Transaction, study: LeadingStudy, *, actor: str) -> bool:
    """Have a leading archive asked; False when that was under way already."""
    parameters = {
        "queue_name": LEADING_QUEUE,
        "device_name": study.device_name,
        "local_aet": study.local_aet,
        "remote_aet": study.leading_aet,
        "study": study.study_instance_uid,
        "actor": actor,
        "reason": "attributes of the leading archive are needed",
    }
    if tx.execute(load_queries("leading")["demand"], parameters).fetchone():
        return True
    tx.execute(load_queries("leading")["hasten"], parameters)
    return False


def record(
    tx: Transaction, leading_aet: str, study: str, found: LeadingAnswer, *, freshness: Freshness
) -> None:
    """Keep an answer, tell who waits for it, and drop what there is no room for."""
    attributes = None
    if found.kind is AnswerKind.FOUND:
        attributes = (found.attributes or Dataset()).to_json().replace("\\u0000", "")
    elif found.kind is AnswerKind.NO_MATCH:
        attributes = "{}"
    tx.execute(
        load_queries("leading")["record"],
        {
            "leading_aet": leading_aet,
            "study": study,
            "attributes": attributes,
            "error_message": None if attributes else found.message.replace("\0", ""),
        },
    )
    if freshness.size > 0:
        tx.execute(load_queries("leading")["evict"], {"size": freshness.size})
    if freshness.stale_s:
        tx.execute(load_queries("leading")["expire"], {"stale_s": freshness.stale_s})


def mark_pending(tx: Transaction, study: LeadingStudy, sop: str, policy: str) -> None:
    """Note that a received object waits for the answer."""
    tx.execute(
        load_queries("leading")["mark_pending"],
        {
            "leading_aet": study.leading_aet,
            "study": study.study_instance_uid,
            "sop": sop,
            "policy": policy,
        },
    )


def pending(
    tx: Transaction, leading_aet: str, study: str, limit: int = 100
) -> list[PendingCoercion]:
    """Return received objects that wait for an answer."""
    rows = tx.execute(
        load_queries("leading")["pending"],
        {"leading_aet": leading_aet, "study": study, "limit": limit},
    )
    return [
        PendingCoercion(
            pk, policy, json.loads(coercions) if coercions else None, calling, StoredFile(*file)
        )
        for pk, policy, coercions, calling, *file in rows
    ]


def settle(
    tx: Transaction, instance_pk: int, leading_aet: str, coercions: dict[str, Any] | None
) -> None:
    """Keep what an answer changed in a received object."""
    tx.execute(
        load_queries("leading")["settle"],
        {
            "instance_pk": instance_pk,
            "leading_aet": leading_aet,
            "coercions": Jsonb(coercions) if coercions else None,
        },
    )


def drop_pending(tx: Transaction, leading_aet: str, study: str) -> None:
    """Let go of objects that wait for an answer, as there is nothing to coerce them with."""
    tx.execute(
        load_queries("leading")["drop_pending"], {"leading_aet": leading_aet, "study": study}
    )


def set_coercions(tx: Transaction, sop: str, coercions: dict[str, Any]) -> None:
    """Keep what coercion changed in an object that was just received."""
    tx.execute(
        load_queries("leading")["set_coercions"], {"sop": sop, "coercions": Jsonb(coercions)}
    )


def recorded(tx: Transaction, instance_pks: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Return what coercion changed in objects when they were received, by instance."""
    rows = tx.execute(load_queries("leading")["recorded"], {"instance_pks": list(instance_pks)})
    return {pk: json.loads(coercions) for pk, coercions in rows}


def reindex(tx: Transaction, study: str, attributes: Mapping[str, str]) -> None:
    """Bring coerced attributes of patient and study into the index, given by column."""
    parameters = {"study": study, "attributes": Jsonb(dict(attributes))}
    tx.execute(load_queries("leading")["reindex"], parameters)
