"""Tasks: MJCF, reset, observation, reward, success and a scripted expert, batched in torch and written once."""
