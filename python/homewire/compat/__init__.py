"""The session APIs of other vendors."""
