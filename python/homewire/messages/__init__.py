"""Messages: e-mails and SMS, from the transactional outbox to a sender (docs/design/messages.md)."""
