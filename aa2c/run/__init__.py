"""A run as its owner sees it: status, controls, history, files."""
