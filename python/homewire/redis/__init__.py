"""Redis itself: `connect` to one, or start the private server that homewire brings (`embedded`)."""
