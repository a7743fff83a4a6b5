"""The last projection of an image tower, fitted to how photographs of one person differ.

Few training people teach a whole tower their own faces by heart. What differs between two photographs of one person
(light, pose, cloth) is much alike in all people, so its directions can be measured on few and made smaller for
everybody.
"""

from typing import Any

import numpy as np
import torch

Whitening = tuple[np.ndarray, np.ndarray]
"""A mean m and a matrix T, float64, shapes (size,) and (size, size): an embedding e becomes (e − m) T."""


def within_person_whitening(embeddings: np.ndarray, identities: np.ndarray, strength: float) -> Whitening | None:
    """What gives embeddings about the same spread within people in every direction.

    T = S^(−1/2), where S = strength · (covariance of photographs about their person's mean) + (1 − strength) · its mean
    variance in every direction; scaled so that the mean squared length stays. The mean taken away is that of all.

    Args:
        embeddings: (n, size), not normalised.
        identities: Of each, (n,).
        strength: 0 to less than 1: 0 leaves every direction as it is.

    Returns:
        None where no person has two photographs that differ.

    Source: Hatch et al., "Within-class covariance normalization for SVM-based speaker recognition", Interspeech 2006,
        with its smoothing; as learnt whitening of image retrieval, Radenović et al., TPAMI 2018.
    """
    values = np.asarray(embeddings, np.float64)
    _, person, counts = np.unique(identities, return_inverse=True, return_counts=True)
    means = np.zeros((len(counts), values.shape[1]))
    np.add.at(means, person, values)
    from_mean = values - (means / counts[:, None])[person]
    # a person's photographs lie nearer to their own mean than to the true one, by the root of (n - 1) / n
    from_mean *= np.sqrt(counts / np.maximum(counts - 1, 1))[person, None]
    within = from_mean[counts[person] > 1]
    spread = float(np.square(within).sum()) / max(len(within), 1)
    if spread <= 1e-12 * float(np.square(values).sum(axis=1).mean()):
        return None
    covariance = strength * within.T @ within / len(within)
    covariance += (1 - strength) * spread / values.shape[1] * np.eye(values.shape[1])
    variances, directions = np.linalg.eigh(covariance)
    matrix = (directions / np.sqrt(variances)) @ directions.T
    mean = values.mean(axis=0)
    lengths = [np.square(part).sum(axis=1).mean() for part in (values, (values - mean) @ matrix)]
    return mean, matrix * np.sqrt(lengths[0] / lengths[1])


def projects(visual: Any) -> bool:
    """Whether what an image tower gives comes from a last projection that `whiten` can change."""
    return hasattr(visual, "attnpool") or (getattr(visual, "proj", None) is not None and hasattr(visual, "ln_post"))


@torch.no_grad()
def whiten(visual: Any, mean: np.ndarray, matrix: np.ndarray) -> None:
    """Let a tower that `projects` give (e − mean) @ matrix in place of its embeddings e, shape (n, size)."""
    last = getattr(visual, "attnpool", None)
    weight = visual.proj if last is None else last.c_proj.weight
    m, t = (torch.as_tensor(value, device=weight.device, dtype=torch.float64) for value in (mean, matrix))
    if last is None:
        # x P − m = (x − d) P, where P is wide enough that some d has d P = m
        visual.ln_post.bias.sub_(m @ torch.linalg.pinv(weight.double()))
        weight.copy_(weight.double() @ t)
        return
    adapters = getattr(last.c_proj, "parametrizations", {})
    stored = adapters["weight"].original if "weight" in adapters else weight
    stored.add_(t.T @ weight.double() - weight.double())
    last.c_proj.bias.copy_((last.c_proj.bias.double() - m) @ t)
