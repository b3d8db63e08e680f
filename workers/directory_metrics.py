"""What a dispatcher tells Prometheus of the configuration."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

from archive.configuration.source import ConfigurationSource
from archive.errors import ConfigurationError

DIRECTORY_UP: Final = "dicomq_directory_up"
PROBLEMS: Final = "dicomq_configuration_problems"
_SEVERITIES = ("error", "warning", "notice")


class DirectoryCollector(Collector):
    """Says whether the directory can be used, and how much in it is wrong."""

    def __init__(self, source: ConfigurationSource) -> None:
        self._source = source

    @override
    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Return the gauges; does not wait for LDAP servers."""
        up = GaugeMetricFamily(DIRECTORY_UP, "Whether the directory can be used.")
        wrong = GaugeMetricFamily(
            PROBLEMS, "Entries and values set aside or doubtful.", labels=["severity"]
        )
        try:
            counts = Counter(one.severity for one in self._source.snapshot().problems)
        except ConfigurationError:
            up.add_metric([], 0)
            return iter([up])
        up.add_metric([], 0 if self._source.outage() else 1)
        for severity in _SEVERITIES:
            wrong.add_metric([severity], counts[severity])
        return iter([up, wrong])
