"""WebSocket handshakes, subscriptions, and the handoff of sockets to the core."""
