"""What must hold for a round to be safe, decided by each side from its own configuration (§2, §4)."""

from __future__ import annotations

from dataclasses import dataclass

from choral.errors import CohortTooSmall, ParameterError, PeerError


@dataclass(frozen=True)
class Parameters:
    """The frame of every round of a task, as one participant sees it.

    Attributes:
        largest: n_max, the largest cohort that sums are planned for (§6.2).
        dimension: length d of the main segment, uint32.
        auxiliary: length a of the auxiliary segment, uint64.
        minimum: n_min, the smallest cohort and the smallest survivor set this participant accepts.
        tolerated: c, how many members may collude with the aggregator; None is floor((n - 1) / 4).
        staleness: how many versions older than the cohort's record a member's base may be.

    Raises:
        ParameterError: a frame in which no round could be safe.
    """

    largest: int
    dimension: int
    auxiliary: int
    minimum: int = 3
    tolerated: int | None = None
    staleness: int = 0

    def __post_init__(self) -> None:
        if self.dimension < 1 or self.auxiliary < 1:
            raise ParameterError(
                f"vectors of {self.dimension} and {self.auxiliary} words, expected at least 1 of each"
            )
        if not 2 <= self.minimum <= self.largest:
            raise ParameterError(
                f"a smallest cohort of {self.minimum}, expected 2 to {self.largest} (the largest cohort)",
                hint="a sum over one member is that member's update",
            )
        self.threshold(self.minimum)

    def colluders(self, n: int) -> int:
        """c for a cohort of n."""
        return (n - 1) // 4 if self.tolerated is None else self.tolerated

    def threshold(self, n: int) -> int:
        """t = floor((n + c) / 2) + 1 (§4): above it lies one survivor set a round, never two.

        Raises:
            ParameterError: c colluders of n would leave a sum over a single honest member.
        """
        c = self.colluders(n)
        t = (n + c) // 2 + 1
        if c < 0 or t > n or t - c < 2:
            raise ParameterError(
                f"a cohort of {n} cannot bear {c} colluding members",
                hint=f"raise the smallest cohort to {c + 2} or more, or lower `tolerated`",
            )
        return t

    def check_cohort(self, n: int) -> int:
        """The threshold t for a cohort of n that this participant accepts.

        Raises:
            CohortTooSmall: n is below the minimum.
            PeerError: n is above the largest cohort.
        """
        if n < self.minimum:
            raise CohortTooSmall(
                f"a cohort of {n} was offered, this member accepts {self.minimum} or more",
                hint="the minimum stands in this participant's own copy of the federation file",
                rule="4.2.1",
            )
        if n > self.largest:
            raise PeerError(
                f"a cohort of {n} was offered, but sums are planned for {self.largest} at most",
                hint="the largest cohort stands in the task: a larger one could wrap",
                rule="4.2.1",
            )
        return self.threshold(n)

    def quorum(self, n: int) -> int:
        """Fewest survivors of a cohort of n: max(t, n_min) (§4)."""
        return max(self.threshold(n), self.minimum)
