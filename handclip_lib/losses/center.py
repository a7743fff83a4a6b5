"""Distance of embeddings to a learnt centre of their identity."""

from torch import Tensor


def center_loss(embeddings: Tensor, centers: Tensor, identities: Tensor) -> Tensor:
    """Half the mean squared Euclidean distance of each embedding to its identity's centre.

    Args:
        embeddings: Shape (n, size).
        centers: Shape (n_identities, size); they learn too, usually with a rate of their own.
        identities: int64, shape (n,).

    Source: Wen et al., "A Discriminative Feature Learning Approach for Deep Face Recognition", ECCV 2016, eq. 2,
        divided by n.
    """
    return 0.5 * (embeddings - centers[identities]).square().sum(dim=1).mean()
