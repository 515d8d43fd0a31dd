"""homewire: a realtime event router for connected homes and devices."""

__version__ = "0.1.0"
