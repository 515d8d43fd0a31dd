"""Limits that hold across nodes."""
