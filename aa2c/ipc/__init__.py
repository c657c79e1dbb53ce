"""Shared memory between processes: numpy and msgpack only, no torch, no reinforcement learning."""
