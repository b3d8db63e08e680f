"""The Celery application, and why each of its settings is as it is.

Celery gives pools, remote control, events and the command line. It carries hints only: it keeps
no results, schedules nothing and retries nothing, because the ledger does.
"""

import logging
import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

from celery import Celery, signals

from archive.telemetry import configure_checkpoint, configure_logging
from workers import start
from workers.broker_tls import broker_tls
from workers.monitor.option import pages_option

if TYPE_CHECKING:
    from archive.configuration.settings import Settings
    from archive.model.task import TaskKind
    from workers.processor import Processor
    from workers.runtime import Runtime


_CHATTY = ("celery.worker.strategy", "celery.app.trace", "celery.worker.consumer.consumer")
"""Loggers of Celery with a line for each hint and queue, which our events replace."""


class WorkerApp(Celery):
    """Celery application that opens the runtime of its process when first asked for it."""

    events_cls = "workers.event_pace:GatheringEvents"

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Celery's own
        super().__init__(*args, **kwargs)
        self.node_name = f"worker-{os.getpid()}"
        self._runtime: Runtime | None = None
        self._runtime_lock = threading.Lock()

    def settings(self) -> "Settings":
        """Return the settings of this process."""
        from archive.configuration.settings import Settings  # noqa: PLC0415 - keeps --help fast

        return Settings.from_environment()

    def processors(self) -> "Mapping[TaskKind, Processor]":
        """Return the processors of this release."""
        from workers.processors import PROCESSORS  # noqa: PLC0415 - keeps --help fast

        return PROCESSORS

    def runtime(self) -> "Runtime":
        """Return the runtime of this process."""
        from workers.runtime import open_runtime  # noqa: PLC0415 - keeps --help fast

        with self._runtime_lock:
            if self._runtime is None:
                worker = f"{self.node_name}#{os.getpid()}"
                self._runtime = open_runtime(self.settings(), self.processors(), worker=worker)
            return self._runtime

    def set_up_logging(self, **_: object) -> None:
        """Log our way; Celery then leaves the loggers alone (signal `setup_logging`)."""
        settings = self.settings()
        configure_logging(settings)
        configure_checkpoint(settings.variables.get("DICOMQ_CHECKPOINT"))
        for chatty in _CHATTY:
            logging.getLogger(chatty).setLevel(logging.WARNING)

    def stop_tasks(self, **_: object) -> None:
        """Ask running tasks to stop (signal `worker_shutting_down`, in a signal handler)."""
        if self._runtime is not None:
            self._runtime.keeper.shut_down()

    def close_runtime(self, **_: object) -> None:
        """Close the runtime if it was opened (signal `worker_shutdown`)."""
        with self._runtime_lock:
            runtime, self._runtime = self._runtime, None
        if runtime is not None:
            runtime.close()

    def cancel_revoked(self, request: Any, **_: object) -> None:  # noqa: ANN401 - Celery's own
        """Cancel in the ledger what was revoked in Celery (signal `task_revoked`).

        The signal comes in the worker's event loop, which must not wait for PostgreSQL.
        """
        task_pk = int(request.args[0])
        runner = self.runtime().runner
        cancel = threading.Thread(
            target=runner.cancel, args=(task_pk,), kwargs={"actor": "Celery revoke"}, daemon=True
        )
        cancel.start()


def broker_url(redis_url: str) -> str:
    """Return `redis_url` as kombu spells it.

    redis-py writes a Unix socket as ``unix:///path?db=0``, kombu as
    ``redis+socket:///path?virtual_host=0``; both are accepted. Everything else is passed on.
    """
    parts = urlsplit(redis_url)
    if parts.scheme not in {"unix", "redis+socket"}:
        return redis_url
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    query["virtual_host"] = query.pop("db", query.get("virtual_host", "0"))
    return f"redis+socket://{parts.netloc}{parts.path}?{urlencode(query)}"


def _broker(redis_url: str) -> dict[str, Any]:
    """Return where the broker is, and how it is spoken to."""
    url, tls = broker_tls(redis_url)
    return {"broker_url": broker_url(url), "broker_use_ssl": tls or False}


def celery_settings(redis_url: str) -> dict[str, Any]:
    """Return Celery's configuration for the broker at `redis_url`."""
    return {
        **_broker(redis_url),
        "broker_transport_options": {
            # Without it a worker hangs for ever on a half-open connection.
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 10,
            # The ledger orders by priority; one list per queue instead of four.
            "priority_steps": [0],
            # A busy queue does not starve the others.
            "queue_order_strategy": "round_robin",
            # A hint needs no redelivery: the ledger notices that nobody claimed its task. Nothing
            # is left behind in Redis, and no acknowledgement can fail on a broken connection.
            "ack_emulation": False,
        },
        # Redis may come and go at any time, also before the worker.
        "broker_connection_retry_on_startup": True,
        "broker_connection_retry": True,
        "broker_connection_max_retries": None,
        # A demoted master answers READONLY, which is a channel error.
        "broker_channel_error_retry": True,
        # Early acknowledgement: late ones lose and duplicate messages; claims do neither.
        "task_acks_late": False,
        "task_reject_on_worker_lost": False,
        # A transfer goes on while Redis is away.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # A worker takes a hint only when it has a free slot, so another one may take it.
        "worker_disable_prefetch": True,
        "worker_prefetch_multiplier": 1,
        "worker_eta_task_limit": 1,
        # The ledger is the result.
        "task_ignore_result": True,
        "result_backend": None,
        # The dispatcher publishes again what the broker lost.
        "task_publish_retry": False,
        "task_create_missing_queues": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        # SCU work waits for peers: threads serve it at a seventh of the memory of processes.
        "worker_pool": "threads",
        "worker_concurrency": 8,
        # Flower shows what happens.
        "worker_send_task_events": True,
        "task_send_sent_event": False,
        "worker_hijack_root_logger": False,
        "include": ["workers.tasks"],
    }


def prepare_app(app: WorkerApp) -> WorkerApp:
    """Add settings, options and bootsteps to an application without configuring it yet."""
    app.add_defaults(lambda: celery_settings(app.settings().redis_url))
    app.user_options["worker"].add(start.kind_option())
    app.user_options["preload"].add(pages_option())
    app.steps["consumer"].add("workers.bootsteps:QueueSync")
    app.steps["consumer"].add("workers.event_pace:EventPace")
    app.steps["consumer"].add("workers.hint_intake:HintIntake")
    signals.celeryd_init.connect(start.log_from_the_start)
    signals.worker_init.connect(start.prepare_worker)
    return app


app = prepare_app(WorkerApp("dicomq", set_as_current=True))
