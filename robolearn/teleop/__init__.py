"""The operator's side: recording sessions and who drives at each step."""
