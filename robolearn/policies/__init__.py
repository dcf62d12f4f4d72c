"""The one policy object: encoders x backbone x action head, its runner, and how it is saved."""
