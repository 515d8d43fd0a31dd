"""Devices: records, keys, ownership."""
