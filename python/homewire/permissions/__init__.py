"""Permissions of users and groups."""
