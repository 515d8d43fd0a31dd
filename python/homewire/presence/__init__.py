"""Presence: which devices are connected, on all nodes (docs/design/presence.md)."""
