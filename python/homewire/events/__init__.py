"""Events and commands in: validation, authorisation, append."""
