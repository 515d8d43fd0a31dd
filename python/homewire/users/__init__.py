"""Users: registration, verification, changes of address, deletion."""
