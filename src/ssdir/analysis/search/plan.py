"""How the objects of an index are searched, chosen from their number and the size of their embeddings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Self

EXACT_UP_TO = 50_000
"""Number of objects up to which a search compares all of them, which takes milliseconds and is exact."""
WHOLE_UP_TO = 1_000_000
"""Number of objects up to which the partitions hold whole embeddings, a second copy of them."""
ROWS_PER_PARTITION = 1000
"""Of more than a million objects, partitions have as many rows as there are partitions: more would take k-means
hours."""
PROBED_SHARE = 0.04
LEAST_PROBED = 24
ROWS_COMPARED = 400_000
"""Share of the partitions that is searched, the least number of them, and the most rows in them beyond that."""
CANDIDATES = 8
LEAST_CANDIDATES = 80
"""Objects nearest by quantised embeddings that are compared again exactly: for each neighbour, and at least."""
PARTITIONS_LAST = 2
"""Partitions are made anew when there are more than this many times the objects that they were made for."""

_MOST_SUB_VECTORS = 64
_TRAINING_BYTES = 1 << 26
_TRAINING_ROWS = (32, 256)
"""Least and most rows for each partition that k-means is trained with."""


@dataclass(frozen=True)
class SearchPlan:
    """How objects are searched; docs/search.md has the recall and the time that each choice was measured with.

    Attributes:
        partitions: number of k-means partitions (IVF); 0 where every object is compared.
        sub_vectors: number of bytes to which an embedding is quantised in its partition (PQ); 0 where it stays
            whole.
        probed: number of partitions nearest to the query that are searched.
        training_rows: number of rows for each partition that k-means is trained with.
    """

    partitions: int = 0
    sub_vectors: int = 0
    probed: int = 0
    training_rows: int = _TRAINING_ROWS[1]

    @classmethod
    def of(cls, count: int, latent_dim: int) -> Self:
        """Chooses the plan of `count` objects with embeddings of `latent_dim` numbers."""
        if count <= EXACT_UP_TO:
            return cls()
        partitions = min(count // ROWS_PER_PARTITION, max(WHOLE_UP_TO // ROWS_PER_PARTITION, math.isqrt(count)))
        probed = min(partitions * PROBED_SHARE, ROWS_COMPARED * partitions / count)
        least, most = _TRAINING_ROWS
        rows = min(max(_TRAINING_BYTES // (partitions * latent_dim * 4), least), most)
        return cls(
            partitions=partitions,
            sub_vectors=_sub_vectors(latent_dim) if count > WHOLE_UP_TO else 0,
            probed=min(partitions, max(LEAST_PROBED, round(probed))),
            training_rows=min(rows, count // partitions),
        )

    def refine_factor(self, k: int) -> int | None:
        """Returns how many candidates for each of k neighbours are compared again exactly; None for none."""
        return max(CANDIDATES, math.ceil(LEAST_CANDIDATES / k)) if self.sub_vectors else None

    def probed_of(self, share: float) -> int:
        """Returns how many partitions to search where a filter keeps a share of the objects.

        A filter leaves fewer objects in each partition, and the nearest of them lie further apart: more partitions
        are searched, by the square root of 1 / share (measured in docs/search.md), up to all.
        """
        if share * self.partitions**2 <= self.probed**2:
            return self.partitions
        return min(self.partitions, math.ceil(self.probed / math.sqrt(share)))

    def lance_config(self) -> Any:
        """Returns LanceDB's description of the index."""
        from lancedb.index import IvfFlat, IvfPq

        common: dict[str, Any] = {
            "distance_type": "cosine",
            "num_partitions": self.partitions,
            "sample_rate": self.training_rows,
        }
        return IvfPq(num_sub_vectors=self.sub_vectors, **common) if self.sub_vectors else IvfFlat(**common)


def upkeep(count: int, partitioned: int, unassigned: int) -> Literal["make", "assign", "none"]:
    """Returns what has to be done with the partitions of an index after objects were added.

    A few objects that are in no partition are compared with every query, one by one. Partitions of far fewer
    objects than there are would each hold too many, and may lack whole kinds of objects.

    Args:
        count: number of objects.
        partitioned: number of objects when the partitions were made; 0 if there are none.
        unassigned: number of objects that are in no partition.
    """
    if count > EXACT_UP_TO and count > PARTITIONS_LAST * partitioned:
        return "make"
    return "assign" if partitioned and unassigned > EXACT_UP_TO else "none"


def _sub_vectors(latent_dim: int) -> int:
    """Returns how many bytes quantise an embedding: one for every two numbers, at most 64.

    Product quantisation divides the numbers equally; where their number has no such divisor, each gets a byte.
    """
    divisors = [number for number in range(1, latent_dim + 1) if latent_dim % number == 0]
    most = min(_MOST_SUB_VECTORS, max(1, latent_dim // 2))
    best = max(number for number in divisors if number <= most)
    return best if 8 * best >= latent_dim else latent_dim
