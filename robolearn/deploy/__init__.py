"""Driving a robot with a saved policy: history and chunks, real time, inference at its fastest."""
