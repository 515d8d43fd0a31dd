"""Logging in: passwords, tokens, attempts and their limits."""
