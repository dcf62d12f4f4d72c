"""Recording that loses nothing: writer, live episodes, journal, repair."""
