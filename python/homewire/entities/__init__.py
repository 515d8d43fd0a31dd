"""Entities of devices."""
