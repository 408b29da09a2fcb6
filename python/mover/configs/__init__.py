"""The shipped configurations, and how a configuration is read: YAML first, then the command line."""

from mover.configs.loading import differences, load_config, save_config, shipped, unknown_setting

__all__ = ["differences", "load_config", "save_config", "shipped", "unknown_setting"]
