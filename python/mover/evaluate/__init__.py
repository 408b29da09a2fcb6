"""Evaluation: embeddings, exact ranks under ties, Recall@K, tables and pictures."""
