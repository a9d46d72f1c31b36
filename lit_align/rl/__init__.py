"""On-policy reinforcement learning: experience, policy update, critic, KL control."""
