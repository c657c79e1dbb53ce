"""What a machine can do of each stage of a run, and how near a whole run comes to it."""
