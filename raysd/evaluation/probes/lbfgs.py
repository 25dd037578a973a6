"""L-BFGS for many problems of one shape at once (Nocedal 1980), each with its own steps.

It is code of our own because SciPy's L-BFGS, which scikit-learn's logistic regression uses, and torch's solve one
problem at a time; a search with scikit-learn takes 10.6 times as long (`python benchmarks/evaluation.py`,
`probe_speedup`).

Points are float32 tensors [d, G, K]: G problems of d x K unknowns. Values, slopes and products of points are float64
[G].
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

HISTORY = 10
REFRESH = 20
"""Iterations after which the curvature is measured anew."""
MAX_TRIALS = 30
DECREASE, SLOPE, NOISE = 0.1, 0.8, 1e-6
SMALLEST_COSINE = 1e-12

Objective = Callable[[torch.Tensor, torch.Tensor, bool], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
"""From points [d, G, K] and the numbers of their problems [G]: losses [G], gradients, and, where asked for, the
positive diagonals of the Hessians."""


@dataclass(frozen=True)
class Memory:
    """L-BFGS's knowledge of the Hessian: past steps, the changes of the gradient along them, and a diagonal; each [d,
    G, K]."""

    steps: list[torch.Tensor]
    changes: list[torch.Tensor]
    curvature: torch.Tensor

    def shifted(self, diagonal: torch.Tensor) -> "Memory":
        """Return the memory for a problem whose Hessian has this diagonal added."""
        return Memory(
            self.steps,
            [change + diagonal * step for step, change in zip(self.steps, self.changes, strict=True)],
            self.curvature + diagonal,
        )


def minimize(
    objective: Objective,
    start: torch.Tensor,
    empty_loss: float,
    max_iterations: int,
    tolerance: float,
    memory: Memory | None = None,
) -> tuple[torch.Tensor, list[int], Memory]:
    """Minimize G convex problems. Return the minima, the iterations of each, and the memory of the Hessian of those
    that took longest.

    A problem is done, and leaves the batch, when the decrease that a step promises is below `tolerance` times its loss,
    and below `tolerance` times what it has gained over `empty_loss`; or when no step along its direction decreases the
    loss any more.

    Args:
        objective: losses, gradients and curvatures; float32 noise in the losses is expected.
        start: points [d, G, K].
        empty_loss: the loss of a model that has learned nothing.
        max_iterations: for each problem.
        tolerance: relative error of the loss, above 0.
        memory: knowledge of the Hessian to start with.
    """
    best = start.clone()
    active = torch.arange(start.shape[1], device=start.device)
    iterations = torch.zeros_like(active)
    point = start
    loss, gradient, curvature = objective(point, active, memory is None)
    steps: list[torch.Tensor] = []
    changes: list[torch.Tensor] = []
    if memory is not None:
        steps, changes, curvature = list(memory.steps), list(memory.changes), memory.curvature
    stalled = torch.zeros_like(active, dtype=torch.bool)
    for iteration in range(max_iterations + 1):
        direction = _direction(gradient, curvature, steps, changes)
        slope = dot(direction, gradient)
        go_on = (-slope / 2 > tolerance * torch.minimum(loss, (empty_loss - loss).clamp(min=1e-12))) & ~stalled
        if iteration == max_iterations:
            go_on = torch.zeros_like(go_on)
        iterations[active] = iteration
        best[:, active] = point
        if not bool(go_on.all()):
            if not bool(go_on.any()):
                break
            active, loss, slope = active[go_on], loss[go_on], slope[go_on]
            point, gradient, curvature, direction = (
                value[:, go_on] for value in (point, gradient, curvature, direction)
            )
            steps, changes = [value[:, go_on] for value in steps], [value[:, go_on] for value in changes]
        found = _search(
            objective, active, point, direction, loss, gradient, slope, curvature, (iteration + 1) % REFRESH == 0
        )
        steps.append(found[0] - point)
        changes.append(found[2] - gradient)
        del steps[:-HISTORY], changes[:-HISTORY]
        point, loss, gradient, curvature, stalled = found
    return best, iterations.tolist(), Memory(steps, changes, curvature)


def dot(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return the inner products [G] of points [d, G, K]."""
    return (left * right).sum((0, 2), dtype=torch.float64)


def scaled(factors: torch.Tensor, point: torch.Tensor) -> torch.Tensor:
    """Return points [d, G, K] times factors [G]."""
    return factors.float()[:, None] * point


def _direction(
    gradient: torch.Tensor, curvature: torch.Tensor, steps: list[torch.Tensor], changes: list[torch.Tensor]
) -> torch.Tensor:
    """Return the search directions by the two-loop recursion, which starts from the inverse curvature; pairs with
    hardly any curvature are ignored."""
    rest, used = gradient, []
    for step, change in zip(reversed(steps), reversed(changes), strict=True):
        product = dot(step, change)
        weight = torch.where(
            product > SMALLEST_COSINE * (dot(step, step) * dot(change, change)).sqrt(), 1 / product, 0.0
        )
        share = weight * dot(step, rest)
        rest = rest - scaled(share, change)
        used.append((step, change, weight, share))
    result = rest / curvature
    if steps:
        product, size = dot(steps[-1], changes[-1]), dot(changes[-1], changes[-1] / curvature)
        result = scaled(torch.where((product > 0) & (size > 0), product / size, 1.0), result)
    for step, change, weight, share in reversed(used):
        result = result + scaled(share - weight * dot(change, result), step)
    return -result


def _search(
    objective: Objective,
    active: torch.Tensor,
    start: torch.Tensor,
    direction: torch.Tensor,
    start_loss: torch.Tensor,
    start_gradient: torch.Tensor,
    start_slope: torch.Tensor,
    start_curvature: torch.Tensor,
    refresh: bool,
) -> tuple[torch.Tensor, ...]:
    """Search along the directions. Return points, losses, gradients and curvatures, and which problems found no better
    point.

    A step is taken when the loss falls by enough, or, where float32 cannot tell, when the slope has fallen (Hager and
    Zhang 2005); else a shorter one is tried, by the parabola through what is known.
    """
    point, loss, gradient, curvature = (
        start.clone(),
        start_loss.clone(),
        start_gradient.clone(),
        start_curvature.clone(),
    )
    pending, length = torch.arange(len(active), device=active.device), torch.ones_like(loss)
    for _ in range(MAX_TRIALS):
        tried = start[:, pending] + scaled(length, direction[:, pending])
        tried_loss, tried_gradient, tried_curvature = objective(tried, active[pending], refresh)
        before, slope = start_loss[pending], start_slope[pending]
        flatter = dot(tried_gradient, direction[:, pending]) <= -SLOPE * slope
        good = (tried_loss <= before + DECREASE * length * slope) | ((tried_loss <= before + NOISE * before) & flatter)
        taken = pending[good]
        point[:, taken], loss[taken], gradient[:, taken] = tried[:, good], tried_loss[good], tried_gradient[:, good]
        if refresh:
            curvature[:, taken] = tried_curvature[:, good]
        lowest = -slope * length**2 / (2 * (tried_loss - before - slope * length))
        length = torch.minimum(torch.maximum(lowest.nan_to_num(0.0), 0.1 * length), 0.5 * length)[~good]
        pending = pending[~good]
        if not len(pending):
            break
    stalled = torch.zeros_like(active, dtype=torch.bool)
    stalled[pending] = True
    return point, loss, gradient, curvature, stalled
