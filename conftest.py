"""For all tests: how long an example of a property takes says nothing on a machine that is busy otherwise."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("homewire", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("homewire")
