"""Checkpoints: verified files, and the tensors in them."""
