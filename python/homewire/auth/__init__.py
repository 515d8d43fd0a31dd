"""Authentication and authorisation: the principal of a request, and what it may do."""
