"""The dashboard, which `python -m deploy.grafana.dashboard` writes, and how Grafana finds it."""
