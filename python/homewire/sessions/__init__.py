"""Sessions: their records, their expiry, and the connections that depend on them."""
