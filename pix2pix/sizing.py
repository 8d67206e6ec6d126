"""How many processes fit into the cluster a job runs in, and what each of them reserves."""

import math
import os
from typing import NamedTuple

SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # a variable that drivers of `ray job submit` have
CPUS_OF_SOURCE = 0.1  # it only hands out, on one node, and nobody knows on which
# of a large node: more cores speed one process up ever less. Not four, so that nodes of 8, 12, 16
# ... have room for the source beside one process for each four CPUs
CPUS_PER_ACTOR = 4.0 - CPUS_OF_SOURCE


def cpus_of_nodes() -> list[float]:
    """How many CPUs each node of the cluster has that lives.

    Of the node where a submitted job's driver runs, those that are free: what
    `--entrypoint-num-cpus` reserved stays reserved as long as the job runs.
    """
    import ray

    alive = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    cpus = {name: resources.get("CPU", 0.0) for name, resources in alive.items()}
    if SUBMITTED in os.environ:  # elsewhere what is free says what was in use a moment ago
        from ray._private.state import available_resources_per_node  # nothing public tells it

        here = ray.get_runtime_context().get_node_id()
        cpus[here] = available_resources_per_node()[here].get("CPU", 0.0)
    return list(cpus.values())


def gpus() -> int:
    """How many GPUs the cluster has."""
    import ray

    return int(ray.cluster_resources().get("GPU", 0))


def cpus_per_worker(workers: int, gpu: bool) -> float:
    """The CPUs that each training worker reserves.

    Beside GPUs a whole one, where there are so many, so that patches are cut on other nodes; else
    see `reserved_per_worker`.

    Raises:
        RuntimeError: the cluster has fewer GPUs than there are workers.
    """
    if gpu and gpus() < workers:
        raise RuntimeError(
            f"{workers} workers with a GPU each need {workers} GPUs, the cluster has {gpus()}: use "
            f"fewer --workers or train without --gpu"
        )
    nodes = cpus_of_nodes()
    return min(1.0, sum(nodes) / (2 * workers)) if gpu else reserved_per_worker(nodes, workers)


def reserved_per_worker(nodes: list[float], workers: int) -> float:
    """As many CPUs that, with half of the nodes lost, half of what is left stays to cut patches.

    Ray asks for as much at each new start. Were it all that is left, no patch would ever be cut.
    Its CPUs are tickets, not cores: a worker on a small machine still uses all it finds free.

    Args:
        nodes: The CPUs of each.
        workers: How many train.
    """
    smallest_first = sorted(cpus for cpus in nodes if cpus > 0)
    left = smallest_first[: math.ceil(len(smallest_first) / 2)]
    return min(1.0, sum(left) / (2 * workers))


class Pool(NamedTuple):
    """The processes that denoise: how many, the CPUs each reserves, the threads each computes with.

    Attributes:
        size: how many there are at least, and at first.
        cpus: what each reserves of its node.
        threads: with how many each computes.
        most: how many there may be when nodes have come.
    """

    size: int
    cpus: float
    threads: int
    most: int


def pool(actors: int | None, gpu: bool, max_actors: int | None = None) -> Pool:
    """The processes that denoise, sized from the cluster: see `sized`."""
    return sized(cpus_of_nodes(), gpus() if gpu else None, actors, max_actors)


def sized(
    nodes: list[float], gpus: int | None, actors: int | None, max_actors: int | None = None
) -> Pool:
    """The processes that denoise in a cluster.

    Args:
        nodes: The CPUs of each.
        gpus: How many there are for them, one to each; None: they need none.
        actors: As many as the user wants, or None for as many as fit.
        max_actors: As many as there may be when nodes have come, which Ray Data asks the cluster's
            autoscaler for; then `actors` need not fit yet, and there may be no nodes at all. None:
            no more than at first.

    Raises:
        RuntimeError: they don't fit.
        ValueError: `max_actors` is less than `actors`.
    """
    if max_actors is not None and max_actors < (actors or 1):
        raise ValueError(f"max_actors={max_actors} must be at least actors={actors or 1}")
    free = [cpus - CPUS_OF_SOURCE for cpus in nodes if cpus > CPUS_OF_SOURCE]
    largest = max(free, default=CPUS_PER_ACTOR)  # of a node that is still to come

    def fitting(reserved: float) -> int:
        if gpus is not None:
            return gpus
        return sum(int(cpus / reserved + 1e-6) for cpus in free)

    reserved = min(1.0 if gpus is not None else CPUS_PER_ACTOR, largest)
    if max_actors is not None:
        now = fitting(reserved)
        threads = max(1, round(sum(nodes) / now)) if now else math.ceil(reserved)
        return Pool(actors or min(max(now, 1), max_actors), reserved, threads, max_actors)
    while gpus is None and actors and fitting(reserved) < actors and reserved > min(1.0, largest):
        reserved = max(reserved / 1.1, min(1.0, largest))
    if max(actors or 1, 1) > fitting(reserved):
        most = fitting(reserved)
        raise RuntimeError(
            f"{actors or 1} actors that denoise don't fit into the cluster: its nodes have "
            f"{', '.join(f'{cpus:g}' for cpus in nodes) or 'no'} CPUs"
            + (f" and it has {gpus} GPUs; " if gpus is not None else "; ")
            + (f"give at most --actors {most}" if most else "add nodes, or leave out --gpu")
        )
    size = actors or fitting(reserved)
    return Pool(size, reserved, max(1, round(sum(nodes) / size)), size)
