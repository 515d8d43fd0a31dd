"""Entities: subjects of events other than devices."""
