"""Reinforcement learning: PPO on any exact-likelihood policy, SAC, TD3 and DQN on shared parts, and fine-tuning."""
