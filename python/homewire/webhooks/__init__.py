"""Webhooks: events of a project, delivered to smart modules by signed POST requests (docs/design/webhooks.md)."""
