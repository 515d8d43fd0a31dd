"""Webhooks: events for smart modules, by signed POST requests (docs/design/webhooks.md)."""
