"""Train coding agents from expert trajectories: replay them in real containers, reward each step's action, update by GRPO."""

__version__ = "0.1.0"
