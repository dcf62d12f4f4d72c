"""Pictures of what policies and runs do."""
