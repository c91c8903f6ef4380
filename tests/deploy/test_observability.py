"""Rules of Prometheus, dashboard of Grafana: they are valid, ask for what there is, and say what they mean."""

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana.dashboard import COLUMNS, COMMITTED, JOB, generate
from deploy.grafana.panels import DATASOURCE
from deploy.grafana.queries import FAILED
from tests.deploy.expressions import (
    ALERTS,
    DASHBOARD,
    DEPLOY,
    PANELS,
    PROMETHEUS,
    RECORDS,
    Expression,
    loaded,
    of_dashboard,
    of_rules,
)
from tests.deploy.metric_names import METRICS, SERIES
from tests.deploy.promtool import needs_promtool, promtool

PAGE = (DEPLOY.parent / "docs" / "monitoring.md").read_text()
EXPRESSIONS = [*of_rules(), *of_dashboard()]
TESTS = loaded(PROMETHEUS / "rules_test.yml")["tests"]
FROM_PROMETHEUS = {"job", "instance"}


def place(expression: Expression) -> str:
    return expression.place


# Prometheus


@needs_promtool
@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yml"), ("check", "rules", "rules.yml"), ("test", "rules", "rules_test.yml")],
)
def test_promtool_is_content(arguments: tuple[str, ...]) -> None:
    promtool(PROMETHEUS, *arguments)


def test_the_service_is_scraped_under_the_name_that_rules_and_dashboard_look_for() -> None:
    jobs = {job["job_name"]: job for job in loaded(PROMETHEUS / "prometheus.yml")["scrape_configs"]}
    assert jobs[JOB]["static_configs"] == [{"targets": ["embedding-service:8000"]}]
    looked_for = {job for expression in of_rules() for job in re.findall(r'job="([^"]*)"', expression.text)}
    assert looked_for == {JOB}


@pytest.mark.parametrize("rule", RECORDS, ids=[rule["record"] for rule in RECORDS])
def test_a_record_is_named_by_level_metric_and_operations(rule: dict[str, Any]) -> None:
    level, metric, operations = rule["record"].split(":")
    assert all((level, metric, operations))
    assert windows(rule["expr"]) == set(re.findall(r"(?:rate|increase)(\d+[mhd])$", operations))


def windows(expression: str) -> set[str]:
    """The windows that an expression looks at, or those that the records which it reads do."""
    return set(re.findall(r"\[(\w+)\]", expression)) | set(re.findall(r":\w*rate(\d+[mhd])\b", expression))


@pytest.mark.parametrize("alert", ALERTS.values(), ids=ALERTS)
def test_an_alert_says_what_it_means_and_what_to_do(alert: dict[str, Any]) -> None:
    name = alert["alert"]
    assert re.fullmatch(r"\d+[smh]", alert["for"])
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"docs/monitoring.md#{name.lower()}"
    assert len(alert["annotations"]["description"]) > len(alert["annotations"]["summary"])
    assert re.findall(rf"^### {name}$", PAGE, re.MULTILINE) == [f"### {name}"]


def test_every_alert_has_a_section_of_its_own_and_no_section_is_left_over() -> None:
    sections = re.findall(r"^### (Embedding\w+)$", PAGE, re.MULTILINE)
    assert sections == list(ALERTS)
    assert len({name.lower() for name in ALERTS}) == len(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_tested_to_fire_and_to_stay_silent(name: str) -> None:
    cases = [case for test in TESTS for case in test.get("alert_rule_test", []) if case["alertname"] == name]
    assert any(case["exp_alerts"] for case in cases)
    assert any(not case["exp_alerts"] for case in cases)


@pytest.mark.parametrize("record", sorted({rule["record"] for rule in RECORDS}))
def test_a_record_is_read_by_a_test_or_a_rule_or_the_dashboard(record: str) -> None:
    tested = " ".join(case["expr"] for test in TESTS for case in test.get("promql_expr_test", []))
    assert record in tested or any(record in expression.recorded() for expression in EXPRESSIONS)


def test_failures_are_the_same_codes_everywhere() -> None:
    assert {
        code for expression in EXPRESSIONS for code in re.findall(r'code=~"(5[^"]*UNKNOWN[^"]*)"', expression.text)
    } == {FAILED}


# What is asked for


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=place)
def test_an_expression_names_metrics_that_there_are(expression: Expression) -> None:
    assert expression.metrics() <= set(SERIES)
    assert expression.recorded() <= {rule["record"] for rule in RECORDS}
    for metric, label in expression.matched():
        assert label in {*SERIES[metric], *FROM_PROMETHEUS}, (metric, label)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_in_the_page_and_on_the_dashboard(name: str) -> None:
    labels = ", ".join(f"`{label}`" for label in METRICS[name])
    assert f"| `{name}` | {labels} |" in PAGE
    assert any(found.startswith(name) for expression in of_dashboard() for found in expression.metrics())


def test_the_page_names_metrics_and_records_that_there_are() -> None:
    page = Expression("page", PAGE)
    assert page.metrics() <= {*METRICS, *SERIES}
    records = {rule["record"] for rule in RECORDS}
    assert page.recorded() <= records
    assert {record for record in records if f"`{record}`" not in PAGE and not record.startswith("job_slo:")} == set()


# Grafana


def test_the_committed_dashboard_is_what_the_code_gives() -> None:
    assert COMMITTED.read_text() == generate(), "`make dashboard` writes it anew"


@needs_promtool
def test_the_expressions_of_the_dashboard_can_be_read(tmp_path: Path) -> None:
    rules = [{"record": f"test:{at}", "expr": asked.text} for at, asked in enumerate(of_dashboard())]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool(tmp_path, "check", "rules", "rules.yml")


def test_no_two_panels_have_an_id_or_a_title() -> None:
    for what in ("id", "title"):
        values = [panel[what] for panel in DASHBOARD["panels"]]
        assert len(set(values)) == len(values)


def test_no_two_panels_lie_over_each_other() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= COLUMNS for place in places)
    assert [(one, other) for one, other in combinations(places, 2) if overlap(one, other)] == []


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(
        one[at] < other[at] + other[size] and other[at] < one[at] + one[size] for at, size in (("x", "w"), ("y", "h"))
    )


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    if panel["type"] not in ("stat", "table"):
        assert all(target["legendFormat"] for target in panel["targets"])
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_everything_asks_the_datasource_that_was_chosen() -> None:
    asking = [*PANELS, *(target for panel in PANELS for target in panel["targets"]), *DASHBOARD["annotations"]["list"]]
    asking += [variable for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"]
    assert [found for found in asking if found["datasource"] != DATASOURCE] == []


def test_the_panels_follow_the_variables() -> None:
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert {"datasource", "job", "instance", "table"} <= variables
    used = set(re.findall(r"\$\{?([a-z]\w*)", COMMITTED.read_text()))
    assert used == variables
    for expression in of_dashboard():
        assert '$job"' in expression.text or expression.place == "job"


def test_the_dashboard_begins_with_the_datasource_that_is_set_up() -> None:
    (source,) = loaded(DEPLOY / "grafana/provisioning/datasources/prometheus.yml")["datasources"]
    (variable,) = (found for found in DASHBOARD["templating"]["list"] if found["name"] == "datasource")
    assert variable["current"]["value"] == source["uid"]
    assert source["jsonData"]["timeInterval"] == loaded(PROMETHEUS / "prometheus.yml")["global"]["scrape_interval"]
    (provider,) = loaded(DEPLOY / "grafana/provisioning/dashboards/embedding-service.yml")["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
