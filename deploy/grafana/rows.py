"""The panels of the dashboard, row by row, from what is asked first to what explains it."""

from dataclasses import dataclass
from typing import Final

from deploy.grafana.panels import Panel, heatmap, lines, stat, table, timeline
from deploy.grafana.queries import (
    FAILED,
    SERVER,
    TABLE,
    Query,
    increase,
    of_servers,
    of_tables,
    per_second,
    quantile,
    share,
    with_table,
)


@dataclass(frozen=True, slots=True)
class Row:
    """A heading and what stands below it, from left to right and on in the next line."""

    title: str
    panels: tuple[Panel, ...]


REQUESTS: Final = "embedding_requests_total"
SECONDS: Final = "embedding_request_seconds"
_FAILED: Final = f'code=~"{FAILED}"'
_REFUSED: Final = 'code=~"503|UNAVAILABLE"'
_HEALTHY_AT_ONE: Final = (("red", None), ("green", 1.0))
_TAKEN: Final = of_servers("embedding_in_flight")
_LIMIT: Final = of_servers("embedding_in_flight_limit")


OVERVIEW: Final = Row(
    "Overview",
    (
        stat(
            "Servers up",
            "Share of the chosen servers that answer Prometheus. Below 100 %: EmbeddingServerDown.",
            "percentunit",
            f"avg({of_servers('up')})",
            _HEALTHY_AT_ONE,
        ),
        stat(
            "Workers ready",
            "Worker processes that serve, of those that are configured.",
            "percentunit",
            f"sum({of_servers('embedding_workers_ready')}) / (sum({of_servers('embedding_workers')}) > 0)",
            _HEALTHY_AT_ONE,
        ),
        stat("Lookups", "Lookups answered per second, errors included.", "reqps", per_second(REQUESTS)),
        stat(
            "Failed",
            "Share of lookups that failed by the service's fault: 5xx, and their like in gRPC. The promise is 0.1 %.",
            "percentunit",
            share(per_second(REQUESTS, more=_FAILED), per_second(REQUESTS)),
            (("green", None), ("orange", 0.001), ("red", 0.0144)),
            decimals=2,
        ),
        stat(
            "p99",
            "99 of 100 lookups were answered faster, between the last byte of the request and the answer.",
            "s",
            quantile(0.99, SECONDS),
            (("green", None), ("orange", 0.01), ("red", 0.05)),
        ),
        stat(
            "Places taken",
            "Lookups in flight, of EMBEDDING_MAX_IN_FLIGHT in all workers. What comes beyond is refused.",
            "percentunit",
            f"sum({_TAKEN}) / (sum({_LIMIT}) > 0)",
            (("green", None), ("orange", 0.5), ("red", 0.8)),
        ),
        table(
            "Alerts",
            "What is pending or firing, of the job. docs/monitoring.md has a section for each alert.",
            "none",
            'ALERTS{alertname=~"Embedding.+", job=~"$job"}',
            {
                "alertname": "alert",
                "alertstate": "state",
                "severity": "severity",
                "instance": "server",
                "table": "table",
                "slo": "promise",
            },
        ),
        lines(
            "Budgets burnt, over an hour and over six",
            "How many times as fast as a month's budget allows; of all tables and servers of the job, by rules.yml.",
            "none",
            Query('job_slo:embedding_budget_burn:rate1h{job=~"$job"}', "{{slo}}, 1 h"),
            Query('job_slo:embedding_budget_burn:rate6h{job=~"$job"}', "{{slo}}, 6 h"),
            width=12,
            steps=(("green", None), ("orange", 1.0), ("red", 14.4)),
        ),
    ),
)

TRAFFIC: Final = Row(
    "Traffic",
    (
        lines(
            "Lookups by table",
            "No table: those that are not served, and lookups in several at once.",
            "reqps",
            Query(with_table(per_second(REQUESTS, "table")), "{{table}}"),
            stacked=True,
        ),
        lines(
            "Lookups by endpoint",
            "The ways in: the service's own REST and the other protocols.",
            "reqps",
            Query(per_second(REQUESTS, "endpoint"), "{{endpoint}}"),
            stacked=True,
        ),
        lines(
            "Lookups by code",
            "Status codes of HTTP, and names of gRPC's.",
            "reqps",
            Query(per_second(REQUESTS, "code"), "{{code}}"),
            stacked=True,
        ),
        lines(
            "Lookups by version",
            "Which version answered. In a swap one ends where the other begins.",
            "reqps",
            Query(per_second(REQUESTS, "table, version", 'version!=""'), "{{table}} {{version}}"),
        ),
        lines(
            "Failed by table",
            "Share of a table's lookups that failed by the service's fault.",
            "percentunit",
            Query(
                with_table(share(per_second(REQUESTS, "table", _FAILED), per_second(REQUESTS, "table"))), "{{table}}"
            ),
            steps=(("green", None), ("red", 0.001)),
        ),
        lines(
            "Refused by table",
            "Lookups per second answered with 503: too many in flight, or a table that is not ready.",
            "reqps",
            Query(with_table(per_second(REQUESTS, "table, code", _REFUSED)), "{{table}} {{code}}"),
        ),
    ),
)

LATENCY: Final = Row(
    "Latency",
    (
        heatmap(
            "Lookups by their seconds",
            "How many lookups per second took how long; a second band is another kind of lookup.",
            "s",
            per_second(f"{SECONDS}_bucket", "le"),
        ),
        lines(
            "Quantiles",
            "Of all chosen tables together. They are read from buckets: between two bounds they are a guess.",
            "s",
            *(Query(quantile(q, SECONDS), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)),
            width=12,
            steps=(("green", None), ("red", 0.05)),
        ),
        lines(
            "p99 by table",
            "The dashed line is where EmbeddingLatencyHigh begins.",
            "s",
            Query(with_table(quantile(0.99, SECONDS, "table")), "{{table}}"),
            steps=(("green", None), ("red", 0.05)),
        ),
        lines(
            "p99 by endpoint",
            "JSON takes longer than bytes, and texts longer than ids.",
            "s",
            Query(quantile(0.99, SECONDS, "endpoint"), "{{endpoint}}"),
        ),
        lines(
            "Share within 10 ms, by table",
            "The promise is 99 % of all tables together.",
            "percentunit",
            Query(
                with_table(
                    share(
                        per_second(f"{SECONDS}_bucket", "table", 'le="0.01"'), per_second(f"{SECONDS}_count", "table")
                    )
                ),
                "{{table}}",
            ),
        ),
    ),
)

IDS: Final = Row(
    "Ids",
    (
        lines(
            "Ids by table",
            "Ids and tokens looked up per second, of lookups that were answered with 200.",
            "cps",
            Query(per_second("embedding_ids_total", "table"), "{{table}}"),
            stacked=True,
        ),
        lines(
            "Ids of a lookup",
            "Quantiles of how many ids a lookup has, of those answered with 200.",
            "none",
            *(Query(quantile(q, "embedding_request_ids"), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)),
        ),
        lines(
            "Ids outside the table",
            "Per second, whether they were an error or were answered by a rule.",
            "cps",
            Query(per_second("embedding_oov_ids_total", "table"), "{{table}}"),
        ),
        lines(
            "Share outside the table, today and yesterday",
            "Over an hour, of all servers of the job, by rules.yml: EmbeddingOovJump compares the two.",
            "percentunit",
            Query('job_table:embedding_oov_ids:ratio_rate1h{job=~"$job", table=~"$table"}', "{{table}}"),
            Query(
                'job_table:embedding_oov_ids:ratio_rate1h{job=~"$job", table=~"$table"} offset 1d',
                "{{table}}, yesterday",
            ),
            width=12,
        ),
        heatmap(
            "Lookups by their ids",
            "How many lookups per second had how many ids.",
            "none",
            per_second("embedding_request_ids_bucket", "le"),
        ),
    ),
)

TEXTS: Final = Row(
    "Texts of rows",
    (
        lines(
            "Share of rows whose text was kept",
            "Of the rows in JSON answers. Little with much traffic: EMBEDDING_JSON_CACHE_BYTES is small for the table.",
            "percentunit",
            Query(
                share(
                    per_second("embedding_row_texts_total", "table", 'result="hit"'),
                    per_second("embedding_row_texts_total", "table"),
                ),
                "{{table}}",
            ),
            width=12,
        ),
        lines(
            "Rows in JSON answers",
            "Per second: those whose text was kept, and those that had to be rendered.",
            "cps",
            Query(per_second("embedding_row_texts_total", "table, result"), "{{table}} {{result}}"),
            width=12,
            stacked=True,
        ),
    ),
)

SWAPS: Final = Row(
    "Versions and swaps",
    (
        timeline(
            "Workers by the version that they serve",
            "Of all chosen servers. Two bands of a table side by side for longer than a swap: EmbeddingWorkersDiffer.",
            "none",
            Query(f"sum by (table, version) ({of_tables('embedding_active_version')})", "{{table}} {{version}}"),
            (("transparent", None), ("blue", 1.0)),
        ),
        table(
            "Versions in force now",
            "How many workers of each server serve which version.",
            "none",
            f"{of_tables('embedding_active_version')} > 0",
            {"instance": "server", "table": "table", "version": "version", "Value": "workers"},
        ),
        timeline(
            "Tables that every worker serves",
            "Of each server, 1 or 0. At 0 lookups there get 503 not_ready: EmbeddingTableNotReady.",
            "none",
            Query(of_tables("embedding_table_ready"), "{{table}} at {{instance}}"),
            (("red", None), ("green", 1.0)),
        ),
        lines(
            "Seconds of a swap, over an hour",
            "From the beginning of an activation until every worker serves it; checking every byte is most of it.",
            "s",
            *(
                Query(quantile(q, "embedding_swap_seconds", "table", "1h"), f"{{{{table}}}}, {name}")
                for q, name in ((0.5, "median"), (1.0, "most"))
            ),
            width=12,
        ),
        lines(
            "Activations",
            "Done and failed. The first one of a table is in no bar: no rate sees a counter begin.",
            "none",
            increase("embedding_swaps_total", "table, result", TABLE, "{{table}} {{result}}"),
            width=6,
            bars=True,
        ),
        lines(
            "Versions opened by workers",
            "Loaded and failed, of all workers.",
            "none",
            increase("embedding_table_loads_total", "table, result", TABLE, "{{table}} {{result}}"),
            width=6,
            bars=True,
        ),
        lines(
            "Versions open",
            "In a worker, the most of any: the active one, those kept, labelled or asked for.",
            "none",
            Query(f"max by (table) ({of_tables('embedding_loaded_versions')})", "{{table}}"),
            width=6,
        ),
        lines(
            "Bytes of rows mapped",
            "In a worker, the most of any. All workers of a server share these pages.",
            "bytes",
            Query(f"max by (table) ({of_tables('embedding_mapped_bytes')})", "{{table}}"),
            width=6,
        ),
    ),
)

SATURATION: Final = Row(
    "Saturation",
    (
        lines(
            "Places taken by server",
            "Lookups in flight, of those that may be. Read once per scrape: short peaks are not seen.",
            "percentunit",
            Query(
                f"{of_servers('embedding_in_flight')} / ({of_servers('embedding_in_flight_limit')} > 0)", "{{instance}}"
            ),
            steps=(("green", None), ("red", 0.8)),
        ),
        lines(
            "Lookups that wait for a place",
            "They wait some milliseconds and are then refused: more than 0 for long is overload.",
            "none",
            Query(of_servers("embedding_waiting"), "{{instance}}"),
        ),
        lines(
            "Connections",
            "Open connections of all workers of a server.",
            "none",
            Query(of_servers("embedding_connections"), "{{instance}}"),
        ),
    ),
)

PROCESSES: Final = Row(
    "Processes",
    (
        lines(
            "Workers that do not serve",
            "Configured workers less those that serve.",
            "none",
            Query(f"{of_servers('embedding_workers')} - {of_servers('embedding_workers_ready')}", "{{instance}}"),
        ),
        lines(
            "Restarts",
            "Workers and stewards that ended and were replaced: EmbeddingWorkersRestart.",
            "none",
            increase("embedding_worker_restarts_total", "instance", SERVER, "{{instance}}"),
            bars=True,
        ),
        table(
            "Releases",
            "The release and the backend of each server.",
            "none",
            of_servers("embedding_build_info"),
            {"instance": "server", "version": "release", "backend": "backend"},
            width=8,
        ),
    ),
)

ROWS: Final = (OVERVIEW, TRAFFIC, LATENCY, IDS, TEXTS, SWAPS, SATURATION, PROCESSES)
