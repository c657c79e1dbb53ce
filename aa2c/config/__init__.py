"""Options, configurations, and the files they come from. Imports nothing heavy."""
