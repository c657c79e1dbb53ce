"""Reports of finished and running runs: reading, tables, pictures."""
