"""E-mail and SMS out."""
