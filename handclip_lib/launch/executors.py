"""Where the points of a sweep are run: on a Dask cluster, this machine's by default; see `sweep_slurm` for Slurm."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from handclip_lib.errors import ConfigError, RunError
from handclip_lib.launch.points import Point
from handclip_lib.launch.worker import end_processes, run_point, stop_runs

ATTEMPTS = 3  # times a run is begun whose worker is lost
ANSWERS_WITHIN = 20  # seconds
Answer = dict[str, Any]  # of `run_point`
TaskOf = Callable[[Point], dict[str, Any]]  # makes what `run_point` takes


@dataclass(frozen=True)
class Executor:
    """A place where points are run, as three functions.

    Attributes:
        start: Starts the first points of those that wait, as many as there is room for beside the handles that are
            under way, and returns a handle of each.
        poll: The answer of a handle, or None while it goes on.
        stop: Interrupts what is under way; may be called again and again.
        pause: Seconds between looks at what goes on.
    """

    start: Callable[[Sequence[Point], Sequence[Any]], list[Any]]
    poll: Callable[[Any], Answer | None]
    stop: Callable[[Sequence[Any]], None]
    pause: float = 0.1


def answers(points: Sequence[Point], executor: Executor, stopped: Callable[[], bool]) -> Iterator[tuple[Point, Answer]]:
    """Each point with its answer, in the order in which they end.

    A lost worker's run is begun again, `ATTEMPTS` times in all. Once stopped, what waits is "not run" and what is
    under way is interrupted.
    """
    waiting, attempts = deque(points), Counter[str]()
    under_way: list[tuple[Point, Any]] = []
    while waiting or under_way:
        if stopped():
            yield from ((point, {"status": "not run", "error": None}) for point in waiting)
            waiting.clear()
            executor.stop([handle for _, handle in under_way])
        elif waiting:
            handles = executor.start(list(waiting), [handle for _, handle in under_way])
            under_way += [(waiting.popleft(), handle) for handle in handles]
        for point, handle in list(under_way):
            answer = executor.poll(handle)
            if answer is None:
                continue
            under_way.remove((point, handle))
            attempts[point.folder.name] += 1
            if answer["status"] == "lost" and attempts[point.folder.name] < ATTEMPTS and not stopped():
                waiting.appendleft(point)
            else:
                yield point, answer
        time.sleep(executor.pause)


@contextmanager
def on_dask(
    task_of: TaskOf, sweep: str, *, address: str = "", workers: int = 1, gpus: Sequence[str] = (), threads: str = ""
) -> Iterator[Executor]:
    """Run on an existing Dask cluster, or on this machine.

    Locally a worker is a thread that feeds one process, so that one run at a time has its GPUs. On an existing cluster
    as many runs go on as its workers have threads; a task whose worker dies is given to another by Dask itself, as
    often as the scheduler's `allowed-failures` says (3).

    Args:
        task_of: Makes what `run_point` takes.
        sweep: What tells this sweep's processes from another's.
        address: Of the scheduler, such as tcp://10.0.0.1:8786; "" for this machine.
        workers: Runs at once on this machine.
        gpus: `CUDA_VISIBLE_DEVICES` of the local workers in their order; empty to leave it as it is.
        threads: `OMP_NUM_THREADS` of a local run.

    Raises:
        ConfigError: No scheduler answers, or it has no workers.
        RunError: The scheduler is gone while runs go on.
    """
    from distributed import Client, KilledWorker, LocalCluster

    def start(points: Sequence[Point], under_way: Sequence[Any]) -> list[Any]:
        _still_there(client, address)
        room = Counter(client.nthreads())
        room.subtract(worker for _, worker in under_way)
        places = [worker for worker, free in room.items() for _ in range(free)]
        # sent to a worker that is free, since Dask queues tasks at workers that are not; to any other if it dies
        return [
            (client.submit(run_point, own(point), workers=[worker], allow_other_workers=True, pure=False), worker)
            for point, worker in zip(points, places, strict=False)
        ]

    def own(point: Point) -> dict[str, Any]:
        task = task_of(point)
        if not address:
            task |= {"gpus": gpus, "environment": {"OMP_NUM_THREADS": threads} | task["environment"]}
        return task

    def poll(handle: Any) -> Answer | None:
        future, _ = handle
        if future.status == "finished":
            return future.result()
        if future.status == "error":
            error = future.exception()
            if isinstance(error, KilledWorker):
                return {"status": "died", "error": "its workers were lost one after another"}
            return {"status": "failed", "error": f"{type(error).__name__}: {error}"}
        if future.status == "cancelled":
            return {"status": "lost", "error": "its worker was lost, and the sweep was stopped before another came"}
        _still_there(client, address)
        return None

    def stop(under_way: Sequence[Any]) -> None:
        client.run(stop_runs, sweep, on_error="ignore")
        running = set().union(*client.processing().values())
        client.cancel([future for future, _ in under_way if future.key not in running and not future.done()])
        time.sleep(0.5)

    with ExitStack() as stack:
        options: dict[str, Any] = {"processes": False, "threads_per_worker": 1}
        options |= dict.fromkeys(("dashboard_address", "worker_dashboard_address"), "127.0.0.1:0")  # else on all
        cluster = address or stack.enter_context(LocalCluster(n_workers=workers, memory_limit=0, **options))
        try:
            client = stack.enter_context(Client(cluster, timeout=ANSWERS_WITHIN, set_as_default=False))
            client.wait_for_workers(1, timeout=ANSWERS_WITHIN)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"--scheduler {address}: no Dask scheduler with a worker answers there; name one as tcp://HOST:PORT "
                f"({error})"
            ) from error
        try:
            yield Executor(start, poll, stop)
        finally:
            if client.status == "running":
                client.run(end_processes, sweep, on_error="ignore")


def _still_there(client: Any, address: str) -> None:
    if client.status != "running":
        raise RunError(f"the Dask scheduler {address} is gone; start the sweep again: what succeeded is not repeated")
