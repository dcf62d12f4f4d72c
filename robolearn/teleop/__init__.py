"""The operator's side: devices, sessions and pages."""
