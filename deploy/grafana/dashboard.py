"""The committed dashboard: `python -m deploy.grafana.dashboard` writes it anew."""

import json
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Final

from deploy.grafana.panels import DATASOURCE, Json, Panel
from deploy.grafana.queries import of_tables
from deploy.grafana.rows import ROWS, Row

COMMITTED: Final = Path(__file__).parent / "dashboards" / "embedding-service.json"
COLUMNS: Final = 24
JOB: Final = "embedding-service"
"""The scrape job, as prometheus.yml and the alerts have it."""


def generate() -> str:
    """The dashboard, as Grafana reads it."""
    return json.dumps(_dashboard(), indent=2) + "\n"


def _dashboard() -> Json:
    return {
        "uid": "embedding-service",
        "title": "Embedding table service",
        "description": "Lookups, versions and processes of the embedding table service. Made by deploy/grafana.",
        "tags": ["embedding-service"],
        "schemaVersion": 41,
        "editable": True,
        "graphTooltip": 1,  # the cross-hair is in all panels
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": _variables()},
        "annotations": {"list": [_swaps()]},
        "links": [_documentation()],
        "panels": list(_placed(ROWS)),
    }


def _variables() -> list[Json]:
    return [
        {
            "name": "datasource",
            "label": "Prometheus",
            "type": "datasource",
            "query": "prometheus",
            "current": {"text": "Prometheus", "value": "prometheus"},
        },
        _labels("job", "Job", "embedding_workers", many=False),
        _labels("instance", "Server", 'embedding_workers{job=~"$job"}'),
        _labels("table", "Table", 'embedding_table_ready{job=~"$job", instance=~"$instance"}'),
        {
            "name": "docs",
            "label": "Address of the documentation",
            "type": "textbox",
            "hide": 2,
            "query": "docs/monitoring.md",
            "current": {"text": "docs/monitoring.md", "value": "docs/monitoring.md"},
        },
    ]


def _labels(name: str, label: str, series: str, *, many: bool = True) -> Json:
    """A variable with the values of a label. All of them is `.*`: also those series that have no such label."""
    question = f"label_values({series}, {name})"
    all_of_them: Json = {"allValue": ".*", "current": {"text": "All", "value": "$__all"}}
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": dict(DATASOURCE),
        "definition": question,
        "query": {"query": question, "refId": name},
        "refresh": 2,  # whenever the time range changes
        "sort": 1,
        "multi": many,
        "includeAll": many,
    } | (all_of_them if many else {"current": {"text": JOB, "value": JOB}})


def _swaps() -> Json:
    """A mark in every panel where a version came into force: some worker serves it, and a minute ago none did."""
    active = f"sum by (table, version) ({of_tables('embedding_active_version')})"
    return {
        "name": "Versions that came into force",
        "datasource": dict(DATASOURCE),
        "enable": True,
        "iconColor": "blue",
        "expr": f"{active} > 0 unless {active.replace('}', '} offset 1m')} > 0",
        "step": "60s",
        "titleFormat": "{{table}} version {{version}}",
    }


def _documentation() -> Json:
    title = "What the figures mean, what to do about alerts"
    return {"type": "link", "title": title, "url": "${docs}", "icon": "doc", "targetBlank": True}


def _placed(rows: Iterable[Row]) -> Iterator[Json]:
    numbers, y = count(1), 0
    for row in rows:
        yield _heading(row.title, next(numbers), y)
        y += 1
        for line in _lines(row.panels):
            x = 0
            for panel in line:
                yield panel.as_json(next(numbers), x, y)
                x += panel.width
            y += max(panel.height for panel in line)


def _lines(panels: Iterable[Panel]) -> Iterator[list[Panel]]:
    """The panels, as many in a line as there is room for."""
    line: list[Panel] = []
    for panel in panels:
        if sum(other.width for other in line) + panel.width > COLUMNS:
            yield line
            line = []
        line.append(panel)
    yield line


def _heading(title: str, number: int, y: int) -> Json:
    place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


if __name__ == "__main__":
    COMMITTED.write_text(generate())
