"""The last projection of an image tower, fitted to how photographs of one person differ.

Few training people teach a whole tower their own faces by heart. What differs between two photographs of one person
(light, pose, cloth) is much alike in all people, so its directions can be measured on few and made smaller for
everybody.
"""

from typing import Any

import numpy as np
import torch


def within_person_whitening(
    embeddings: np.ndarray, identities: np.ndarray, strength: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean m and matrix T, so that (e − m) T has about the same spread within people in every direction.

    T = S^(−1/2), where S = strength · (covariance of photographs about their person's mean) + (1 − strength) · its mean
    variance in every direction; scaled so that the mean squared length stays. The mean taken away is that of all.

    Args:
        embeddings: (n, size), not normalised.
        identities: Of each, (n,).
        strength: 0..1, of which 1 is all that was measured and needs more photographs than an embedding has values.

    Returns:
        Float64, shapes (size,) and (size, size); None where no person has two photographs that differ.

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
    least = variances.max() * 1e-6  # of strength 1 and few photographs, directions nobody was seen to differ in
    matrix = (directions / np.sqrt(np.maximum(variances, least))) @ directions.T
    mean = values.mean(axis=0)
    lengths = [np.square(part).sum(axis=1).mean() for part in (values, (values - mean) @ matrix)]
    return mean, matrix * np.sqrt(lengths[0] / lengths[1])


def projection_of(visual: Any) -> dict[str, Any]:
    """Names and tensors of the last projection of openai-clip's image tower; empty where there is none.

    Of a ResNet the output of its attention pooling, of a ViT the projection and, for its shift, the last norm's bias.
    """
    if hasattr(visual, "attnpool"):
        named = {"attnpool.c_proj.weight": visual.attnpool.c_proj, "attnpool.c_proj.bias": visual.attnpool.c_proj}
        return {name: _stored(module, name.rsplit(".", 1)[1]) for name, module in named.items()}
    if getattr(visual, "proj", None) is None or not hasattr(visual, "ln_post"):
        return {}
    return {"proj": visual.proj, "ln_post.bias": visual.ln_post.bias}


@torch.no_grad()
def whiten(visual: Any, mean: np.ndarray, matrix: np.ndarray) -> None:
    """Let a tower give (e − mean) @ matrix in place of its embeddings e, shape (n, size); see `projection_of`."""
    (_, projection), (_, shift) = projection_of(visual).items()
    of = {"device": projection.device, "dtype": torch.float64}
    m, t = torch.as_tensor(mean, **of), torch.as_tensor(matrix, **of)
    if hasattr(visual, "attnpool"):
        projection.copy_(t.T @ projection.double())
        shift.copy_((shift.double() - m) @ t)
        return
    # x P − m = (x − d) P, where P is wide enough that some d has d P = m
    shift.sub_(m @ torch.linalg.pinv(projection.double()))
    projection.copy_(projection.double() @ t)


def _stored(module: Any, name: str) -> Any:
    """A parameter of a module, without the adapter that may lie on it."""
    adapters = getattr(module, "parametrizations", {})
    return adapters[name].original if name in adapters else getattr(module, name)
