"""The points of a sweep in jobs of Slurm: an array of them, by submitit."""

import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from handclip_lib.errors import ConfigError, RunError
from handclip_lib.launch.executors import Answer, Executor, TaskOf
from handclip_lib.launch.points import Point
from handclip_lib.launch.worker import run_in_job

LOOK = 3.0  # seconds between questions to Slurm's controller
GONE = 30.0  # seconds after which a job that Slurm no longer lists and that left no answer is lost


@contextmanager
def on_slurm(task_of: TaskOf, folder: Path, options: Mapping[str, Any]) -> Iterator[Executor]:
    """Run in jobs of Slurm.

    Args:
        task_of: Makes what `run_point` takes.
        folder: For submitit's files; every node must see it.
        options: Of sbatch by name, such as partition, time (minutes), gpus_per_node, cpus_per_task, mem, account.

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
    listed = _Listed()
    cancelled: set[str] = set()

    def start(points: Sequence[Point], _: Sequence[Any]) -> list[Any]:
        try:
            return submitter.map_array(run_in_job, [task_of(point) for point in points])
        except (submitit.core.utils.FailedJobError, OSError) as error:
            raise RunError(f"Slurm refuses the jobs: {' '.join(str(error).split())}") from error

    def poll(job: Any) -> Answer | None:
        if job.paths.result_pickle.exists():
            try:
                return job.result()
            except submitit.core.utils.FailedJobError as error:
                return {"status": "failed", "error": f"job {job.job_id} of Slurm: {error}"}
        if listed.lacks(job.job_id):
            return {"status": "lost", "error": f"job {job.job_id} of Slurm ended without an answer; see {folder}"}
        return None

    def stop(jobs: Sequence[Any]) -> None:
        names = {job.job_id for job in jobs} - cancelled
        if names:
            subprocess.run(["scancel", *sorted(names)], check=False)
            cancelled.update(names)

    yield Executor(start, poll, stop, pause=1.0)


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
            return False
        return now - self.missed.setdefault(name, now) > GONE
