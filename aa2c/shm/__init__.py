"""Shared memory between processes: no torch, no reinforcement learning."""
