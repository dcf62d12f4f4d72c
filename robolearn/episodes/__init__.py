"""Running episodes: who acts, one loop over environments and seeds, one road of a step into the file."""
