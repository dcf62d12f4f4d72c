"""Validate, edit and convert datasets; one file for each foreign format."""
