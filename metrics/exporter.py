"""Prometheus exposition: instruments made from the catalogue, and nothing that is not in it."""

from collections.abc import Collection, Iterable, Mapping
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
        metrics = tuple(catalogue)
        self._instruments = {m.name: self._make(m) for m in metrics if not m.whole}
        self._tables = {m.name: _Table(m) for m in metrics if m.whole}

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

    def replace(self, name: str, /, values: Mapping[tuple[str, ...], float]) -> None:
        """All of a `whole` metric: its labels' values, in the catalogue's order -> its value."""
        self._tables[name].values = values

    def keep(self, name: str, /, label: str, values: Collection[str]) -> None:
        """Drop what a metric says of others than `values` of its one label."""
        gauge = cast(Gauge, self._instruments[name])
        for sample in [sample for metric in gauge.collect() for sample in metric.samples]:
            if sample.labels[label] not in values:
                gauge.remove(sample.labels[label])

    def render(self) -> bytes:
        """The text exposition, served as CONTENT_TYPE."""
        tables = "".join(table.render() for table in self._tables.values())
        return generate_latest(self._registry) + tables.encode()


class _Table:
    """Thousands of values that change together; the library's instruments would take ten times as long.

    Source: Prometheus' documentation, "Exposition formats", text format 0.0.4.
    """

    def __init__(self, metric: Metric) -> None:
        assert metric.kind in {"gauge", "counter"}
        self._name = metric.name
        self._head = f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n"
        self._labels = ",".join(f'{label}="%s"' for label in metric.labels)
        self.values: Mapping[tuple[str, ...], float] = {}

    def render(self) -> str:
        rows = (
            f"{self._name}{{{self._labels % labels}}} {float(value)!r}\n"
            for labels, value in self.values.items()
        )
        return self._head + "".join(rows)
