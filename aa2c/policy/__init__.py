"""The policy: network, action distributions, normalization, and fast inference on the CPU."""
