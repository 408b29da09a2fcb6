"""Experiments: sets of runs that answer a question, with the tables and figures that they end in."""
