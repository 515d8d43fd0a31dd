"""E-mails and SMS: queue, texts, senders."""
