"""A Ray cluster that others started: join it, inspect it, refuse it if a sweep would fail half-way."""

import shutil
import socket
import time
from pathlib import Path
from typing import Any

import ray
from ray._private.services import canonicalize_bootstrap_address_or_die
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ltsd.data import Splits
from ltsd.errors import UserError
from sweeps.journal.exchange import Exchange
from sweeps.machines import environment
from sweeps.machines.machine import QUIET, carried, share_asked, starting_ray
from sweeps.settings.flags import Settings
from sweeps.worker.node_setup import Shipment, lacks_of_this_node

LOOK_EVERY_S = 2.0
ANSWER_WITHIN_S = 60.0
SCRATCH = "ray"


class Cluster:
    """`Machines` that are the current nodes of a Ray cluster.

    Raises:
        UserError: no cluster answers, or it refuses us; no node has the share of a GPU that is asked for.
    """

    def __init__(self, settings: Settings) -> None:
        self._address, self._asked = str(settings.ray_address), settings.concurrency
        self.shipment: Shipment | None = None
        self.scratch: Path | None = None
        self._join()
        self._nodes, self._looked = alive_nodes(), time.monotonic()
        there = [node["Resources"] for node in self._nodes]
        most = max(has.get("GPU", 0) for has in there + resources_to_come())
        self.gpus_per_trial = share_asked(settings, most)
        if self.gpus_per_trial > most or (self.gpus_per_trial > 1 and self.gpus_per_trial % 1):
            self.stop()
            raise UserError(
                f"--gpus-per-trial {self.gpus_per_trial:g} cannot be met: no node of the cluster has more than "
                f"{most:g} GPU(s); wait until `ray status` shows one that has, leave the flag out, or give "
                f"{'a share up to 1' if most else '0'}"
            )

    def _join(self) -> None:
        remedy = "run this on a node of a cluster that `ray up` started, with its token in ~/.ray/auth_token"
        with starting_ray(f"--ray-address {self._address}: no cluster can be joined there", remedy):
            # Connect first: if nothing listens, Ray ends this process after 20 s instead of raising an error.
            address = canonicalize_bootstrap_address_or_die(self._address)
            host, _, port = address.rpartition(":")
            socket.create_connection((host, port), ANSWER_WITHIN_S).close()
            ray.init(address=address, **QUIET)

    def start(self, folder: Path, splits: Splits, exchange: Exchange) -> None:
        """Pack what jobs bring to a node, and let every node check that it has everything else."""
        environment.hide(joins=True)
        self.scratch = folder.absolute() / SCRATCH
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()
        self.shipment = Shipment.packed(folder, splits, exchange)
        for node, lacks in look_over(alive_nodes(), self.shipment):
            if lacks:
                raise UserError(f"node {node['NodeManagerAddress']} of the cluster cannot take part: {lacks}")

    def stop(self) -> None:
        """Leave the cluster as it is."""
        ray.shutdown()

    def carries(self) -> int:
        """Return the requested concurrency, or else how many jobs fit on the current nodes; at least one, so that an
        autoscaler sees a demand.
        """
        if self._asked is not None:
            return self._asked
        self._look()
        resources = (node["Resources"] for node in self._nodes)
        fits = (carried(has.get("CPU", 0), has.get("GPU", 0), self.gpus_per_trial) for has in resources)
        return max(1, sum(fits))

    @property
    def workers_kept(self) -> int:
        """See `Machines`; none, because an idle worker keeps an autoscaler from stopping its node."""
        return 0

    def processors_per_gpu(self) -> int:
        """See `Machines`; the maximum over the current nodes and those that an autoscaler may start."""
        kinds = [node["Resources"] for node in self._nodes] + resources_to_come()
        return max([1, *(int(has.get("CPU", 0) / has["GPU"]) for has in kinds if has.get("GPU"))])

    def has(self, host: str) -> bool:
        """See `Machines`."""
        self._looked = 0.0
        self._look()
        return any(node["NodeManagerAddress"] == host for node in self._nodes)

    def _look(self) -> None:
        if time.monotonic() - self._looked > LOOK_EVERY_S:
            self._nodes, self._looked = alive_nodes(), time.monotonic()


def alive_nodes() -> list[dict[str, Any]]:
    """Return the current nodes, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def resources_to_come() -> list[dict[str, float]]:
    """Return the resources of node types that the cluster's autoscaler may start; nothing if it reports none."""
    groups = getattr(ray._private.state.state.get_cluster_config(), "node_group_configs", ())
    return [dict(group.resources) for group in groups]


def look_over(nodes: list[dict[str, Any]], shipment: Shipment) -> list[tuple[dict[str, Any], str]]:
    """Ask every node what it lacks for the jobs of a sweep; "" for nothing. A node that disappears meanwhile is left
    out: Ray notices a lost node late, and lists it until then.
    """
    ask = ray.remote(num_cpus=0, max_retries=0)(lacks_of_this_node)
    there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    answers = [ask.options(scheduling_strategy=where).remote(shipment) for where in there]
    deadline = time.monotonic() + ANSWER_WITHIN_S
    told = [(node, _answer(answer, deadline)) for node, answer in zip(nodes, answers, strict=True)]
    left = {node["NodeID"] for node in alive_nodes()}
    return [(node, lacks) for node, lacks in told if node["NodeID"] in left]


def _answer(answer: Any, deadline: float) -> str:
    try:
        return str(ray.get(answer, timeout=max(0.1, deadline - time.monotonic())))
    except ray.exceptions.GetTimeoutError:
        return f"it does not answer within {ANSWER_WITHIN_S:g} s"
    except Exception as error:  # of any type: the node may lack a module, or have another version of it
        told = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        return f"this project cannot be run there ({told}); install it there as here"
