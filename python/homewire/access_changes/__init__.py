"""Changes of access: control records and the relay of the transactional outbox."""
