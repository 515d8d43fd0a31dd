"""The gateway: handshake, authorisation, handoff. The only room that knows sockets."""
