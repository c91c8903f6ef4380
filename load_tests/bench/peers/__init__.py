"""What is measured, one file for each peer; `known` has them by name."""
