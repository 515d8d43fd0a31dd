"""The Lua of the store, one module for each noun; `script.py` has what they share."""
