"""Key-value pairs of homes and devices."""
