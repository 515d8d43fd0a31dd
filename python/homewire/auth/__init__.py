"""Authentication and authorisation: who calls, and what that principal may do."""
