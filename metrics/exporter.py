"""Prometheus exposition: instruments made from the catalogue, and nothing that is not in it."""

from collections.abc import Collection, Iterable
from typing import cast

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from metrics.catalogue import Metric

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
# A second series for each counter, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Exporter:
    """One process' instruments. Asking for a name that the catalogue lacks is a KeyError: a bug, found at once."""

    def __init__(self, catalogue: Iterable[Metric]) -> None:
        self._registry = CollectorRegistry()
        self._instruments = {metric.name: self._make(metric) for metric in catalogue}

    def _make(self, metric: Metric) -> Counter | Gauge | Histogram | Info:
        match metric.kind:
            case "counter":
                name = metric.name.removesuffix("_total")
                return Counter(name, metric.help, metric.labels, registry=self._registry)
            case "gauge":
                return Gauge(metric.name, metric.help, metric.labels, registry=self._registry)
            case "histogram":
                return Histogram(
                    metric.name,
                    metric.help,
                    metric.labels,
                    buckets=metric.buckets,
                    registry=self._registry,
                )
            case "info":
                return Info(metric.name, metric.help, registry=self._registry)

    def count(self, name: str, /, amount: float = 1, **labels: str) -> None:
        counter = cast(Counter, self._instruments[name])
        (counter.labels(**labels) if labels else counter).inc(amount)

    def begin(self, name: str, /, **labels: str) -> None:
        """Show a labelled value before it is first counted: of what appears at 1, Prometheus sees no increase."""
        self._instruments[name].labels(**labels)

    def set(self, name: str, value: float, /, **labels: str) -> None:
        gauge = cast(Gauge, self._instruments[name])
        (gauge.labels(**labels) if labels else gauge).set(value)

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        histogram = cast(Histogram, self._instruments[name])
        (histogram.labels(**labels) if labels else histogram).observe(value)

    def info(self, name: str, /, **values: str) -> None:
        cast(Info, self._instruments[name]).info(values)

    def forget(self, name: str, /) -> None:
        """Drop every labelled value of a metric: before its whole set is written anew."""
        cast(Gauge, self._instruments[name]).clear()

    def keep(self, name: str, /, label: str, values: Collection[str]) -> None:
        """Drop what a metric says of others than `values` of its one label."""
        gauge = cast(Gauge, self._instruments[name])
        for sample in [sample for metric in gauge.collect() for sample in metric.samples]:
            if sample.labels[label] not in values:
                gauge.remove(sample.labels[label])

    def render(self) -> bytes:
        """The text exposition, served as CONTENT_TYPE."""
        return generate_latest(self._registry)
