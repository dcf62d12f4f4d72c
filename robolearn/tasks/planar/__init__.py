"""Tasks in the plane: a puck that pushes or finds its way."""
