"""Training: the loop, the optimiser, checkpoints and the log."""
