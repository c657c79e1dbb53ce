"""The mathematics of actor-critic learning: rollouts, returns, losses, optimizers, test episodes."""
