"""Homes and their members."""
