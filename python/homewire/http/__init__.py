"""What every handler of plain HTTP needs, whatever it serves: bounded bodies, path ids."""
