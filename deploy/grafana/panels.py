"""Panels in Grafana's JSON model (https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from deploy.grafana.queries import Query

Json: TypeAlias = dict[str, object]
Steps: TypeAlias = tuple[tuple[str, float | None], ...]
"""Colours from a value on; the first has None, from the least."""

DATASOURCE: Final[Mapping[str, object]] = {"type": "prometheus", "uid": "${datasource}"}
PLAIN: Final[Steps] = (("green", None),)


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture: its kind and words, what it asks, its size in the grid of 24 columns."""

    kind: str
    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    width: int = 8
    height: int = 8
    steps: Steps = PLAIN
    custom: Mapping[str, object] = field(default_factory=dict)
    defaults: Mapping[str, object] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    transformations: tuple[Json, ...] = ()

    def as_json(self, number: int, x: int, y: int) -> Json:
        """The panel at a place of the grid, with an id of its own."""
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": dict(DATASOURCE),
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "fieldConfig": {"defaults": self._defaults(), "overrides": []},
            "options": dict(self.options),
            "targets": [_target(query, at) for at, query in enumerate(self.queries)],
            "transformations": list(self.transformations),
        }

    def _defaults(self) -> Json:
        steps = [{"color": color, "value": value} for color, value in self.steps]
        thresholds = {"mode": "absolute", "steps": steps}
        return {"unit": self.unit, "thresholds": thresholds, "custom": dict(self.custom), **self.defaults}


def stat(
    title: str,
    description: str,
    unit: str,
    query: str,
    steps: Steps = PLAIN,
    *,
    decimals: int | None = None,
    width: int = 4,
) -> Panel:
    """One number, coloured by `steps`, over its course."""
    options: Json = {
        "colorMode": "background" if len(steps) > 1 else "none",
        "graphMode": "area",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "value",
    }
    defaults: Json = {"noValue": "none", "decimals": decimals}
    return Panel("stat", title, description, unit, (Query(query),), width, 4, steps, defaults=defaults, options=options)


def lines(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = 8,
    steps: Steps = PLAIN,
    stacked: bool = False,
    bars: bool = False,
) -> Panel:
    """Series over time; with more than one step, a line at each."""
    custom: Json = {
        "drawStyle": "bars" if bars else "line",
        "fillOpacity": 40 if stacked or bars else 8,
        "lineWidth": 1,
        "showPoints": "never",
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if len(steps) > 1 else "off"},
    }
    options: Json = {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    defaults: Json = {"color": {"mode": "palette-classic"}, "min": 0}
    return Panel("timeseries", title, description, unit, queries, width, 8, steps, custom, defaults, options)


def heatmap(title: str, description: str, unit: str, expression: str, *, width: int = 12) -> Panel:
    """The buckets of a histogram over time; `expression` has a series for each `le`."""
    options: Json = {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "scale": "exponential", "exponent": 0.5, "steps": 64},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "tooltip": {"mode": "single", "yHistogram": False},
        "yAxis": {"axisPlacement": "left", "unit": unit},
    }
    query = Query(expression, "{{le}}", format="heatmap")
    return Panel("heatmap", title, description, unit, (query,), width, options=options)


def timeline(title: str, description: str, unit: str, query: Query, steps: Steps, *, width: int = 12) -> Panel:
    """A band for each series, coloured by its value."""
    options: Json = {
        "alignValue": "left",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False},
        "mergeValues": True,
        "rowHeight": 0.8,
        "showValue": "auto",
        "tooltip": {"mode": "single", "sort": "none"},
    }
    custom: Json = {"fillOpacity": 70, "lineWidth": 0}
    defaults: Json = {"color": {"mode": "thresholds"}}
    return Panel("state-timeline", title, description, unit, (query,), width, 8, steps, custom, defaults, options)


def table(
    title: str, description: str, unit: str, expression: str, columns: Mapping[str, str], *, width: int = 12
) -> Panel:
    """The last values with their labels; `columns` are the fields that are shown, in their order, and their heads."""
    shown: Json = {
        "id": "organize",
        "options": {
            "indexByName": {name: at for at, name in enumerate(columns)},
            "renameByName": dict(columns),
        },
    }
    kept: Json = {"id": "filterFieldsByName", "options": {"include": {"names": list(columns)}}}
    query = Query(expression, instant=True, format="table")
    options: Json = {"cellHeight": "sm", "showHeader": True}
    return Panel("table", title, description, unit, (query,), width, options=options, transformations=(kept, shown))


def _target(query: Query, at: int) -> Json:
    return {
        "refId": chr(ord("A") + at),
        "datasource": dict(DATASOURCE),
        "editorMode": "code",
        "expr": query.expression,
        "format": query.format,
        "instant": query.instant,
        "range": not query.instant,
        "interval": query.step,
        "legendFormat": query.legend,
    }
