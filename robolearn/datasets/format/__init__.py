"""The file format: names and types, episodes in a file, reading that trusts nothing."""
