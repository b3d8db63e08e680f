"""Takes the hints that wait in Redis several at a time.

Celery's transport takes one message per pass of the worker's event loop: it sends a BRPOP, waits
for Redis, hands the message over, and around again. With short tasks the threads of the pool wait
for that, while hints wait in Redis. So what else waits in the same queue is taken by one further
command, for as many slots as are free. The hints of other queues come next, because the transport
goes round them.
"""

from typing import Any

from celery import bootsteps
from celery.worker import state
from kombu.utils.json import loads

AT_ONCE = 8
"""Hints of one queue taken in a row besides the first, so that other queues get slots too."""


class HintIntake(bootsteps.StartStopStep):
    """Reads more than one message of a queue at a time; needs Redis 6.2 (RPOP with a count)."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:  # noqa: ANN401 - Celery has no types
        """Read through this module from now on; called again after each reconnect."""
        channel = consumer.task_consumer.channel
        read_one = channel.handlers["BRPOP"]

        def read() -> None:
            read_one()  # raises queue.Empty when the wait ended without a message
            _take_more(channel, min(AT_ONCE, _free_slots(consumer)))

        channel.handlers["BRPOP"] = read


def _take_more(channel: Any, wanted: int) -> None:  # noqa: ANN401
    """Deliver up to `wanted` further messages of the queue that was read last."""
    if wanted < 1:
        return
    # The transport puts the queue it has just read last, and delivers what it reads this way.
    queue = channel._queue_cycle.items[-1]  # noqa: SLF001 - the transport has no other word for it
    for message in channel.client.rpop(queue, wanted) or ():
        channel.connection._deliver(loads(message.decode()), queue)  # noqa: SLF001 - the same


def _free_slots(consumer: Any) -> int:  # noqa: ANN401
    """Return how many more tasks the pool can begin at once, as Celery counts them."""
    limit = getattr(consumer.controller, "max_concurrency", None) or consumer.pool.num_processes
    return int(limit) - len(state.reserved_requests)
