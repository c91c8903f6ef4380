"""The rules of Prometheus as a resource of its operator: `python -m tests.deploy.rules` writes it anew."""

from pathlib import Path
from typing import Any, Final

import yaml

DEPLOY: Final = Path(__file__).parent.parent.parent / "deploy"
RULES: Final = DEPLOY / "prometheus" / "rules.yml"
COMMITTED: Final = DEPLOY / "kubernetes" / "components" / "monitoring" / "prometheusrule.yaml"
_HEAD: Final = "# Made by `python -m tests.deploy.rules` from deploy/prometheus/rules.yml, which explains them.\n"


def resource() -> dict[str, Any]:
    """The resource with the rules as they are."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "embedding-service", "labels": {"app.kubernetes.io/name": "embedding-service"}},
        "spec": yaml.safe_load(RULES.read_text()),
    }


def text() -> str:
    """What is committed."""
    return _HEAD + yaml.safe_dump(resource(), sort_keys=False, width=2**16)


if __name__ == "__main__":
    COMMITTED.write_text(text())
