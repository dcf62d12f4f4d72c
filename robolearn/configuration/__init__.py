"""Every configuration: frozen dataclasses, YAML and the command line. Free of torch."""
