"""Where points of a sweep are run: in `concurrent.futures` of this machine, of a Dask cluster or of jobs of Slurm."""

import os
import shutil
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from handclip_lib.errors import ConfigError, RunError
from handclip_lib.launch.plan import Point
from handclip_lib.launch.worker import NOT_RUN, end_runs, run_point, stop_runs
from handclip_lib.machine import cores

ATTEMPTS = 3  # times a run is begun whose worker is lost
ANSWERS_WITHIN = 20  # seconds
PAUSE = 0.5  # seconds between looks at what goes on
LOOK = 3.0  # seconds between questions to Slurm's controller
GONE = 30.0  # seconds after which a job that Slurm no longer lists and that left no answer is lost
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
Task = dict[str, Any]  # what `run_point` takes
Answer = dict[str, Any]  # and gives


@dataclass(frozen=True)
class Place:
    """Where points run: it has `run_point` called with tasks, and its futures have the answers."""

    submit: Callable[[list[Task]], list[Future[Answer]]]
    stop: Callable[[], None]
    """Interrupts what is under way; may be called again and again."""
    look: Callable[[], int]
    """Looks at what goes on, and says how many runs there is room for at once; a RunError where the place is gone."""


def answers(
    points: Sequence[Point], task_of: Callable[[Point], Task], place: Place, stopped: Callable[[], bool]
) -> Iterator[tuple[Point, Answer]]:
    """Each point with its answer, in the order in which they end.

    A lost worker's run is begun again, `ATTEMPTS` times in all. Once stopped, what waits is "not run" and what is
    under way is interrupted.
    """
    waiting, attempts = deque(points), Counter[str]()
    under_way: dict[Future[Answer], Point] = {}
    while waiting or under_way:
        if stopped():
            yield from ((point, {"status": NOT_RUN, "error": None}) for point in waiting)
            waiting.clear()
            place.stop()
        room = place.look() - len(under_way)
        begun = [waiting.popleft() for _ in range(min(room, len(waiting)))]
        if begun:
            attempts.update(point.folder.name for point in begun)
            under_way |= zip(place.submit([task_of(point) for point in begun]), begun, strict=True)
        if not under_way:
            time.sleep(PAUSE if waiting else 0)  # for a worker
            continue
        for future in wait_for(under_way, PAUSE, "FIRST_COMPLETED").done:
            point, answer = under_way.pop(future), _answer_of(future)
            if answer["status"] == "lost" and attempts[point.folder.name] < ATTEMPTS and not stopped():
                waiting.appendleft(point)
            else:
                yield point, answer


def _answer_of(future: Future[Answer]) -> Answer:
    try:
        return future.result()
    except CancelledError:
        return {"status": "lost", "error": "its worker was lost, and the sweep was stopped before another came"}
    except RunError:
        raise
    except Exception as error:
        if type(error).__name__ == "KilledWorker":
            return {"status": "died", "error": "its workers were lost one after another"}
        return {"status": "failed", "error": f"{type(error).__name__}: {error}"}


@contextmanager
def on_this_machine(sweep: str, *, workers: int, gpus: Sequence[str] = (), threads: str = "") -> Iterator[Place]:
    """Run here, in threads that each wait for the process of one run, so that one run at a time has its GPUs.

    Args:
        sweep: What tells this sweep's processes from another's.
        gpus: `CUDA_VISIBLE_DEVICES` of the runs at once; empty to leave it as it is.
    """
    free: SimpleQueue[dict[str, str]] = SimpleQueue()
    for number in range(workers):
        own = {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}
        free.put({"OMP_NUM_THREADS": threads, **own})

    def run(task: Task) -> Answer:
        lent = free.get()
        try:
            return run_point(task | {"environment": lent | task["environment"]})
        finally:
            free.put(lent)

    executor = ThreadPoolExecutor(workers)
    try:
        yield Place(
            lambda tasks: [executor.submit(run, task) for task in tasks], lambda: stop_runs(sweep), lambda: workers
        )
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        end_runs(sweep)


@contextmanager
def on_dask(sweep: str, address: str) -> Iterator[Place]:
    """Run on an existing Dask cluster, as many runs at once as its workers have threads.

    A task whose worker dies is given to another by Dask itself, as often as the scheduler's `allowed-failures` says.

    A ConfigError where no scheduler with workers answers, a RunError where it is gone while runs go on.
    """
    from distributed import Client

    with ExitStack() as stack:
        try:
            client = stack.enter_context(Client(address, timeout=ANSWERS_WITHIN, set_as_default=False))
            client.wait_for_workers(1, timeout=ANSWERS_WITHIN)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"--scheduler {address}: no Dask scheduler with a worker answers there; name one as tcp://HOST:PORT "
                f"({error})"
            ) from error
        executor = client.get_executor(pure=False)

        def look() -> int:
            if client.status != "running":
                gone = f"the Dask scheduler {address} is gone"
                raise RunError(f"{gone}; start the sweep again: what succeeded is not repeated")
            return sum(client.nthreads().values())

        def stop() -> None:
            client.run(stop_runs, sweep, on_error="ignore")
            if not client.nthreads():
                executor.shutdown(wait=False)  # which cancels what waits for a worker

        def submit(tasks: list[Task]) -> list[Future[Answer]]:
            at_once = Counter[str]()
            for worker, threads in client.nthreads().items():
                at_once[_machine(worker)] += threads
            return [executor.submit(run_with_cores, task, dict(at_once)) for task in tasks]

        try:
            yield Place(submit, stop, look)
        finally:
            if client.status == "running":
                client.run(end_runs, sweep, on_error="ignore")


def run_with_cores(task: Task, at_once: Mapping[str, int]) -> Answer:
    """Run a task on this Dask worker with its share of the cores, by how many runs go on at once on each machine.

    Dask's nanny starts every worker with `ONE_THREAD` at 1, for tasks that are many and small.
    """
    from distributed import get_worker

    share = str(max(1, cores() // at_once.get(_machine(get_worker().address), 1)))
    own = {name: share for name in ONE_THREAD if os.environ.get(name, "1") == "1"}
    return run_point(task | {"environment": own | task["environment"]})


def _machine(address: str) -> str:
    """`tcp://HOST` of a Dask worker's `tcp://HOST:PORT`."""
    return address.rpartition(":")[0]


@contextmanager
def on_slurm(folder: Path, options: Mapping[str, Any]) -> Iterator[Place]:
    """Run in jobs of Slurm: arrays of what is submitted at the same time, by submitit.

    `folder` is for submitit's files, and every node must see it; `options` are of sbatch, by name.

    Raises:
        ConfigError: submitit or Slurm is not there, or an option is unknown or missing.
        RunError: Slurm refuses the jobs.
    """
    if "time" not in options:
        raise ConfigError("--slurm: how long may a run take? -s time MINUTES (submitit's own default is 5)")
    try:
        import submitit
    except ImportError as error:
        raise ConfigError("--slurm needs submitit: pip install 'handclip[slurm]'") from error
    absent = [command for command in ("sbatch", "srun", "squeue", "scancel") if not shutil.which(command)]
    if absent:
        raise ConfigError(f"--slurm: {', '.join(absent)} not found; start the sweep on a login node of Slurm")
    try:
        submitter = submitit.SlurmExecutor(folder)
        submitter.update_parameters(**{"job_name": "handclip", "stderr_to_stdout": True, **options})
    except ValueError as error:
        raise ConfigError(f"--slurm: {error}") from error
    listed, cancelled = _Listed(), set[str]()
    jobs: dict[Future[Answer], Any] = {}

    def submit(tasks: list[Task]) -> list[Future[Answer]]:
        try:
            begun = {Future[Answer](): job for job in submitter.map_array(run_point, tasks)}
        except (submitit.core.utils.FailedJobError, OSError) as error:
            raise RunError(f"Slurm refuses the jobs: {' '.join(str(error).split())}") from error
        jobs.update(begun)
        return list(begun)

    def look() -> int:
        for future, job in list(jobs.items()):
            if job.paths.result_pickle.exists():
                try:
                    future.set_result(job.result())
                except submitit.core.utils.FailedJobError as error:
                    future.set_result({"status": "failed", "error": f"job {job.job_id} of Slurm: {error}"})
            elif listed.lacks(job.job_id):
                ended = f"job {job.job_id} of Slurm ended without an answer; see {folder}"
                future.set_result({"status": "lost", "error": ended})
            if future.done():
                del jobs[future]
        return sys.maxsize

    def stop() -> None:
        if names := {job.job_id for job in jobs.values()} - cancelled:
            subprocess.run(["scancel", *sorted(names)], check=False)
            cancelled.update(names)

    yield Place(submit, stop, look)


@dataclass
class _Listed:
    """The jobs that Slurm has in its queue: squeue answers everywhere, sacct only where there is accounting."""

    names: set[str] = field(default_factory=set)
    asked: float = float("-inf")
    missed: dict[str, float] = field(default_factory=dict)

    def lacks(self, name: str) -> bool:
        """Whether a job has not been in the queue for some time; its answer may take as long to be seen from here."""
        now = time.monotonic()
        if now - self.asked > LOOK:
            command = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                return False  # the controller is busy: nothing is known
            self.names, self.asked = set(done.stdout.split()), now
        if name in self.names:
            self.missed.pop(name, None)
        return name not in self.names and now - self.missed.setdefault(name, now) > GONE
