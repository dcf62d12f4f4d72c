"""Devices that a person (or a script) drives with: every device reads as the same `Command`."""
