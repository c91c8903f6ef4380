"""The expressions that are committed: those of the rules and of the dashboard, and what they name."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from deploy.grafana.dashboard import COMMITTED

DEPLOY: Final = Path(__file__).parent.parent.parent / "deploy"
PROMETHEUS: Final = DEPLOY / "prometheus"
_PLAIN: Final = re.compile(r"(?<![\w:])embedding_\w+(?![\w:])")
_RECORDED: Final = re.compile(r"\w+:embedding_\w+:\w+")
_SELECTED: Final = re.compile(r"(?<![\w:])(embedding_\w+)\{([^}]*)\}")
_MATCHED: Final = re.compile(r"(\w+)(?:=~|!~|!=|=)\"")


def loaded(path: Path) -> Any:  # noqa: ANN401  # a document of any form
    """A file in YAML or JSON."""
    return yaml.safe_load(path.read_text())


RULES: Final[list[dict[str, Any]]] = [
    rule for group in loaded(PROMETHEUS / "rules.yml")["groups"] for rule in group["rules"]
]
RECORDS: Final = [rule for rule in RULES if "record" in rule]
ALERTS: Final = {rule["alert"]: rule for rule in RULES if "alert" in rule}
DASHBOARD: Final[dict[str, Any]] = json.loads(COMMITTED.read_text())
PANELS: Final[list[dict[str, Any]]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


@dataclass(frozen=True, slots=True)
class Expression:
    """PromQL, and where it stands."""

    place: str
    text: str

    def metrics(self) -> set[str]:
        """The metrics that it reads from the service."""
        return set(_PLAIN.findall(self.text))

    def recorded(self) -> set[str]:
        """The names that it reads from rules."""
        return set(_RECORDED.findall(self.text))

    def matched(self) -> Iterator[tuple[str, str]]:
        """Each metric that is selected by labels, with each of these."""
        for name, matchers in _SELECTED.findall(self.text):
            yield from ((name, label) for label in _MATCHED.findall(matchers))


def of_rules() -> list[Expression]:
    """The expressions of recording rules and alerts."""
    return [Expression(rule.get("record") or rule["alert"], rule["expr"]) for rule in RULES]


def of_dashboard() -> list[Expression]:
    """The expressions of panels, variables and annotations, with values in the place of Grafana's own variables."""
    asked = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
    asked += [(mark["name"], mark["expr"]) for mark in DASHBOARD["annotations"]["list"]]
    return [Expression(title, _with_windows(text)) for title, text in [*asked, *_of_variables()]]


def _of_variables() -> Iterator[tuple[str, str]]:
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], re.sub(r"label_values\((.*), \w+\)", r"\1", variable["definition"])


def _with_windows(text: str) -> str:
    return text.replace("$__rate_interval", "5m").replace("$__interval", "1m")
