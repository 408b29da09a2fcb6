"""Benchmarks on a GPU: scripts/bench --device cuda.

A module for each: `DESCRIPTION`, `run(plan, clock)` -> rows of the record, `table(rows)` -> Markdown. `plan` is
"quick", "default" or "full". How they measure stands in `clock`, what the least times are in `rates`.
"""
