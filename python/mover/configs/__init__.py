"""The shipped configurations, how one is read (YAML first, then the command line), and how it is shown."""

from mover.configs.loading import differences, find_config, load_config, save_config, shipped, unknown_setting
from mover.configs.shown import config_text, setting_text

__all__ = [
    "config_text", "differences", "find_config", "load_config", "save_config", "setting_text", "shipped",
    "unknown_setting",
]  # fmt: skip
