"""`bench`: the throughput of each stage of a run on this machine, and how close a whole run comes."""
