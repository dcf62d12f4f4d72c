"""Tasks of a seven-joint arm with a gripper."""
