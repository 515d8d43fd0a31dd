"""How the properties of all tests are looked at."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Hypothesis gives each example 200 ms, and the making of some a second: one during which others had the
# processor failed by that alone.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
