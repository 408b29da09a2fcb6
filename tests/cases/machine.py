"""What there is of the machine that the tests run on."""

from pathlib import Path


def available_bytes() -> int:
    """Memory that can be taken without harm to what runs already."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024
