"""The machinery of the REST service: dispatch, decoding, shapes of answers."""
