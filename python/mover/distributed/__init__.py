"""Training on several processes: who they are, what they exchange, and how they keep one model."""
