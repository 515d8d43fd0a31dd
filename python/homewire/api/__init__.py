"""The REST tier: one module per resource."""
