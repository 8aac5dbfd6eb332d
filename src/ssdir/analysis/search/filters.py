"""Filters of the objects to search, by class, score and size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ssdir.errors import InputError, nearest
from ssdir.formatting import quote


@dataclass(frozen=True)
class ObjectFilter:
    """A filter of objects by class, score and size.

    Attributes:
        classes: names of classes; empty for all.
        min_score: least score.
        min_size: least longer side, relative to the image's longer side.
        max_size: largest longer side.
    """

    classes: tuple[str, ...] = ()
    min_score: float | None = None
    min_size: float | None = None
    max_size: float | None = None

    def sql(self, class_names: Sequence[str]) -> str | None:
        """Returns the filter in SQL, made of numbers only: names are looked up, and never become part of it.

        Raises:
            InputError: if there is no class of a name, a limit is not a number, or no size is within the limits.
        """
        if self.min_size is not None and self.max_size is not None and self.min_size > self.max_size:
            raise InputError(f"no size is at least {self.min_size:g} and at most {self.max_size:g}")
        parts = []
        if self.classes:
            unknown = [name for name in self.classes if name not in class_names]
            if unknown:
                hint = nearest(unknown[0], class_names) or f"; it has {quote(', '.join(class_names), 200)}"
                raise InputError(f"the index has no class {quote(unknown[0])}{hint}")
            labels = sorted(class_names.index(name) for name in self.classes)
            parts.append(f"label IN ({', '.join(map(str, labels))})")
        limits = (("score", ">=", self.min_score), ("size", ">=", self.min_size), ("size", "<=", self.max_size))
        for column, sign, limit in limits:
            if limit is not None:
                if not math.isfinite(limit):
                    raise InputError(f"the limit of {column} must be a number, got {limit}")
                parts.append(f"{column} {sign} {float(limit)!r}")
        return " AND ".join(parts) or None
