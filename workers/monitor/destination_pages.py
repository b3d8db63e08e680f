"""Destinations, exporters and queues: how they stand, pausing, resuming, C-ECHO."""

from typing import Any

from typing_extensions import override

from archive.configuration.descriptors import Exporter
from archive.ledger import monitoring
from archive.ledger.monitoring import Slice
from workers.gatekeeping import Loads
from workers.monitor.charts import by_destination, chart
from workers.monitor.handler import JsonHandler, PageHandler
from workers.monitor.parameters import text_of

WINDOWS = 5
SPANS = {"hour": (3600.0, 120.0), "day": (86400.0, 1800.0)}


class DestinationsPage(PageHandler):
    """Destinations with their charts, exporters with their windows, queues, configuration."""

    template = "destinations.html"
    tab = "destinations"

    @override
    def load(self, *_names: str) -> dict[str, Any]:
        """Return how everything stands."""
        services = self.services
        now = services.clock.now()
        span = self.get_query_argument("span", "hour")
        since_s, slice_s = SPANS.get(span, SPANS["hour"])
        services.loads(wait_s=0)
        slices = services.recent.get(
            f"throughput {since_s}", since_s / 360, lambda: self._ended(since_s, slice_s)
        )
        found = by_destination(slices.value or ())
        loads = services.loads()
        gatekeeper = services.gatekeeper()
        snapshot = services.source.snapshot()
        charts = {
            title: chart(each, now, since_s=since_s, slice_s=slice_s)
            for title, each in found.items()
        }
        exporters = sorted(snapshot.device.exporters.values(), key=lambda each: each.exporter_id)
        return {
            "span": span if span in SPANS else "hour",
            "destinations": gatekeeper.destinations(loads.value or Loads()),
            "charts": charts,
            "queues": gatekeeper.queues(loads.value or Loads()),
            "is_counted": loads.value is not None,
            "is_drawn": slices.value is not None,
            "age_s": loads.age_s,
            "exporters": [(each, self._windows(each)) for each in exporters],
            "problems": snapshot.problems,
            "device": snapshot.device,
            "fingerprint": snapshot.fingerprint,
            "location": services.source.directory.location,
        }

    def _ended(self, since_s: float, slice_s: float) -> list[Slice]:
        name = self.services.settings.device_name
        with self.services.ledger.statement() as tx:
            return monitoring.throughput(tx, name, since_s=since_s, slice_s=slice_s)

    def _windows(self, exporter: Exporter) -> list[Any]:
        if exporter.schedule.is_always:
            return []
        windows = exporter.schedule.next_windows(self.services.clock.now(), WINDOWS)
        return [(window.start, window.end) for window in windows]


class GateAction(JsonHandler):
    """Pause and resume a queue or a destination."""

    async def post(self, what: str, name: str, operation: str) -> None:
        """Answer with what was done."""
        given = {"reason": [str(self.body_json().get("reason") or "")]}
        reason = text_of(given, "reason") or ""
        changed = await self.run(self._change, what, name, (operation, reason))
        self.services.recent.forget()
        done = f"{operation}d" if operation != "pause" else "paused"
        self.write_json({"text": f"{name} {done}" if changed else f"{name} was {done} already"})

    def _change(self, what: str, name: str, how: tuple[str, str]) -> list[str]:
        operation, reason = how
        gatekeeper = self.services.gatekeeper(self.actor)
        match what, operation:
            case "queues", "pause":
                return gatekeeper.pause_queues([name], reason)
            case "queues", _:
                return gatekeeper.resume_queues([name])
            case _, "pause":
                return gatekeeper.pause_destinations([name], reason)
            case _:
                return gatekeeper.resume_destinations([name])


class Echo(JsonHandler):
    """Send a C-ECHO to a destination."""

    async def post(self, title: str) -> None:
        """Answer with the status and how long it took."""
        self.write_json({"text": await self.run(self._echo, title)})

    def _echo(self, title: str) -> str:
        from workers.probing import route_to, send_echo  # noqa: PLC0415 - pynetdicom is large

        clock = self.services.clock
        route = route_to(self.services.source.snapshot(), title)
        started = clock.monotonic()
        status = send_echo(route, clock)
        took_ms = (clock.monotonic() - started) * 1000
        answer = (
            "reached, but it knows no Verification" if status is None else f"status {status:04X}H"
        )
        return f"C-ECHO to {route}: {answer}, {took_ms:.0f} ms"
