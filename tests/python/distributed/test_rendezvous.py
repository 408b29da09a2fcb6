"""Two machines meet by torchrun's c10d rendezvous, as docs/scaling.md has it: on one address, and on two of a network.

The second are network namespaces joined by a cable, each with an address of its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cases.processes import free_port, torchrun_environment
from mover.configs import load_config, save_config
from mover.data.synthetic import generate
from mover.train.logging import read_log

PROGRAM = str(Path(__file__).parents[2] / "cases" / "meeting.py")
TRAIN = str(Path(__file__).parents[3] / "scripts" / "train.py")
CABLE = {"mover-test-a": "10.213.77.1", "mover-test-b": "10.213.77.2"}  # name of the namespace → its address
Machine = subprocess.Popen[str]


def launch(
    words: Sequence[str], host: str, port: int, *, within: Sequence[str] = (), address: str = "", interface: str = "lo"
) -> Machine:
    """torchrun on one of two machines; between namespaces none knows by its host name that it is the host."""
    options = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "test"]
    options += ["--rdzv-endpoint", f"{host}:{port}", "--local-addr", address or host]
    if within:
        options += ["--rdzv-conf", f"is_host={int(address == host)}"]
    command = [*within, sys.executable, "-m", "torch.distributed.run", *options, *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=torchrun_environment(GLOO_SOCKET_IFNAME=interface),
    )  # fmt: skip


def said(machines: Sequence[Machine]) -> list[str]:
    """What each wrote, once both have ended well."""
    try:
        found = [machine.communicate(timeout=240) for machine in machines]
    finally:
        for machine in machines:
            if machine.poll() is None:
                os.killpg(machine.pid, signal.SIGKILL)
    for machine, (_, errors) in zip(machines, found, strict=True):
        assert machine.returncode == 0, errors[-2000:]
    return [out for out, _ in found]


def over_the_cable(cable: dict[str, str], *words: str) -> list[str]:
    """What either machine wrote, of a program that both ran."""
    host, port = next(iter(cable.values())), 29400
    return said([
        launch(words, host, port, within=["ip", "netns", "exec", name], address=address, interface="cable")
        for name, address in cable.items()
    ])  # fmt: skip


def test_two_agents_meet_on_one_machine() -> None:
    port = free_port()
    both = said([launch([PROGRAM], "127.0.0.1", port) for _ in range(2)])
    assert sorted(out.strip() for out in both) == ["process 1 of 2: 3", "process 2 of 2: 3"]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def cable() -> Iterator[dict[str, str]]:
    """Two network namespaces with a cable between them."""
    if shutil.which("ip") is None:
        pytest.skip("there is no command ip")
    ends = list(CABLE)
    try:
        for name in ends:
            ip("netns", "add", name)
        ip("link", "add", "cable", "netns", ends[0], "type", "veth", "peer", "name", "cable", "netns", ends[1])
        for name, address in CABLE.items():
            ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield CABLE
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces: {error.stderr.strip()}")
    finally:
        for name in ends:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def test_two_addresses_meet_over_a_network(cable: dict[str, str]) -> None:
    both = over_the_cable(cable, PROGRAM)
    assert sorted(out.strip() for out in both) == ["process 1 of 2: 3", "process 2 of 2: 3"]


def test_two_addresses_train_one_run(cable: dict[str, str], tmp_path: Path) -> None:
    """The folder is shared; the first process writes."""
    sizes = {"layers": 1, "hidden_size": 16, "heads": 2, "intermediate_size": 16}
    towers = {f"model.{m}.{name}": value for m in ("text", "video", "audio") for name, value in sizes.items()}
    config = load_config("demo", {
        "data.manifest": generate(tmp_path / "data", train=8, validation=4, test=4, progress=False),
        "data.frames": 2, "data.image_size": 32, "data.audio_seconds": 1.0, "data.workers": 0,
        "train.steps": 2, "train.batch_size": 6, "train.log_every": 1, "train.device": "cpu",
        "objective.transport.shard_rows": 2, "objective.mover_start": 0.0, "objective.mover_warmup": 0.0,
        "output": tmp_path, "name": "met", **towers, "model.audio.layers": 2,
    })  # fmt: skip
    save_config(config, tmp_path / "met.yaml")
    out = over_the_cable(cable, TRAIN, "--config", str(tmp_path / "met.yaml"))
    assert any("2 processes (ddp)" in told for told in out)
    steps = [line for line in read_log(config.folder / "log.jsonl") if line["kind"] == "train"]
    assert [line["step"] for line in steps] == [1, 2] and all("mover" in line["terms"] for line in steps)
