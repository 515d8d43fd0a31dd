"""How the properties of all tests are looked at."""

from __future__ import annotations

from hypothesis import settings

# Hypothesis gives each example 200 ms: one during which others had the processor failed by that alone.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
