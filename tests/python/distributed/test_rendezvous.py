"""Two machines meet by torchrun's c10d rendezvous, as docs/scaling.md has it: on one address, and on two of a network.

The second are network namespaces joined by a cable, each with an address of its own.
"""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "cases" / "meeting.py"
CABLE = {"mover-test-a": "10.213.77.1", "mover-test-b": "10.213.77.2"}  # name of the namespace → its address


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def launch(host, port, *, within=(), address=None, interface="lo"):
    """torchrun on one of two machines; between namespaces none knows by its host name that it is the host."""
    words = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "test"]
    words += ["--rdzv-endpoint", f"{host}:{port}", "--local-addr", address or host]
    if within:
        words += ["--rdzv-conf", f"is_host={int(address == host)}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": interface}
    command = [*within, sys.executable, "-m", "torch.distributed.run", *words, str(PROGRAM)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **pipes, text=True, env=environment, start_new_session=True)


def assert_both_say_the_sum(machines):
    try:
        said = [machine.communicate(timeout=120) for machine in machines]
    finally:
        for machine in machines:
            if machine.poll() is None:
                os.killpg(machine.pid, signal.SIGKILL)
    for machine, (_, errors) in zip(machines, said, strict=True):
        assert machine.returncode == 0, errors[-2000:]
    assert sorted(out.strip() for out, _ in said) == ["process 1 of 2: 3", "process 2 of 2: 3"]


def test_two_agents_meet_on_one_machine():
    port = free_port()
    assert_both_say_the_sum([launch("127.0.0.1", port) for _ in range(2)])


def ip(*words):
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def cable():
    """Two network namespaces with a cable between them."""
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
    except FileNotFoundError:
        pytest.skip("there is no command ip")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces: {error.stderr.strip()}")
    finally:
        for name in ends:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def test_two_addresses_meet_over_a_network(cable):
    host = next(iter(cable.values()))
    machines = [
        launch(host, 29400, within=["ip", "netns", "exec", name], address=address, interface="cable")
        for name, address in cable.items()
    ]
    assert_both_say_the_sum(machines)
