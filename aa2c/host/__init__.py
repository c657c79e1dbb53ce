"""The local engine: the processes of a run on one host and the memory between them."""
