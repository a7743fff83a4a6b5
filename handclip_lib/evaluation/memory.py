"""Work that the memory cannot hold is refused before it begins."""

from handclip_lib.errors import EvaluationError
from handclip_lib.machine import free_memory


def check_memory(what: str, needed: int, remedy: str) -> None:
    """Refuse work, named in words, that needs more bytes than are free, with what to do instead."""
    free = free_memory()
    if needed > free:
        mib = f"{needed / 2**20:,.0f} MiB beside the embeddings, and {free / 2**20:,.0f} MiB are free"
        raise EvaluationError(f"{what} needs {mib}; {remedy}")
