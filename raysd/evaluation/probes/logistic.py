"""Multinomial logistic regression with an L2 penalty, for many strengths of it.

The objective is scikit-learn's: C times the sum of the cross-entropies plus half the squared weights; the bias is not
penalized. With two classes scikit-learn penalizes the difference of their weights, which is one class's penalty twice,
and so does this.

It is code of our own because scikit-learn fits one strength at a time, on CPUs: for 30 strengths and a refit on 20,000
x 2,048 features of 100 classes its `LogisticRegression` takes 10.6 times as long (`python benchmarks/evaluation.py`,
`probe_speedup`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from raysd.device import find_device
from raysd.evaluation.probes.lbfgs import Memory, dot, minimize, scaled

TOLERANCE = 2e-7
CHUNK = {"cpu": 2**20, "cuda": 2**26}
"""Logits that are held at once."""
GROUP = {"cpu": 2**16, "cuda": 2**24}
"""Logits of the problems that are solved together; at least one problem is."""
ROWS = 8192
"""Images that are rotated at once, in float64."""


@dataclass(frozen=True)
class LinearModel:
    """Weights float32 [D, K] and bias float32 [K]."""

    weights: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return logits [N, K] of features [N, D]."""
        return np.asarray(features @ self.weights + self.bias)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return classes int64 [N], 0 to K - 1, of features [N, D]."""
        return np.asarray(self.logits(features).argmax(1))


@dataclass(frozen=True)
class PathFit:
    """One model for each strength, in their order, and the iterations that it took."""

    models: list[LinearModel]
    iterations: list[int]


def fit_path(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    strengths: Sequence[float],
    max_iterations: int = 2000,
    tolerance: float = TOLERANCE,
    start: LinearModel | None = None,
) -> PathFit:
    """Fit one model for each strength C; see `LogisticProblem`.

    Args:
        features: finite float32 [N, D].
        labels: int [N], 0 to `num_classes` - 1.
        num_classes: K, at least 2.
        strengths: C, above 0, in any order.
        max_iterations: of L-BFGS, for each strength.
        tolerance: relative error of the objective at which a fit ends.
        start: where the smallest strength starts.
    """
    return LogisticProblem(features, labels, num_classes).fit_path(strengths, max_iterations, tolerance, start)


class LogisticProblem:
    """Training images in a frame that suits the solver: centered, along their principal axes, and with a column of
    ones.

    None of it changes the minimum: the bias is not penalized, the penalty is the same in all orthogonal frames, and
    weights outside the span of the images are 0. In this frame the Hessian is close to its diagonal, by which L-BFGS is
    preconditioned. It runs on the GPU where there is one.

    Args:
        features: finite float32 [N, D].
        labels: int [N], 0 to `num_classes` - 1.
        num_classes: K, at least 2.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
        self.num_classes = num_classes
        self.device = find_device()
        self.labels = torch.from_numpy(np.asarray(labels, dtype=np.int64)).to(self.device)
        data = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32)).to(self.device)
        self.mean = data.mean(0, dtype=torch.float64)
        self.axes = self._principal_axes(data)
        self.columns = torch.ones(len(data), self.axes.shape[1] + 1, device=self.device)
        for rows, turned in zip(data.split(ROWS), self.columns.split(ROWS), strict=True):
            turned[:, :-1] = (rows.double() - self.mean) @ self.axes
        self.penalized = torch.ones(self.columns.shape[1], 1, 1, device=self.device)
        self.penalized[-1] = 0

    def _principal_axes(self, data: torch.Tensor) -> torch.Tensor:
        """Return the principal axes, orthonormal float64 [D, d], d = min(N, D)."""
        few = len(data) < data.shape[1]
        if few:  # the span of the images first: it is small, and holds all that the weights can use
            span, small = torch.linalg.qr((data.double() - self.mean).T)
            scatter = small @ small.T
        else:
            scatter = torch.zeros(data.shape[1], data.shape[1], dtype=torch.float64, device=self.device)
            for rows in data.split(ROWS):
                centered = rows.double() - self.mean
                scatter.addmm_(centered.T, centered)
        axes = torch.linalg.eigh(scatter).eigenvectors
        return span @ axes if few else axes

    def fit_path(
        self,
        strengths: Sequence[float],
        max_iterations: int = 2000,
        tolerance: float = TOLERANCE,
        start: LinearModel | None = None,
    ) -> PathFit:
        """Fit one model for each strength C, from small to large; see the function `fit_path`.

        Large problems are solved one by one. Each starts where the line through its two forerunners leads, with what
        they learned of the Hessian; only the penalty's part of it has changed. Small ones are solved in groups, each
        from the last of the group before.
        """
        shares = torch.bincount(self.labels, minlength=self.num_classes).double() / len(self.labels)
        log_shares = shares.clamp(min=1e-12).log()
        weights = torch.zeros(self.columns.shape[1], self.num_classes, device=self.device)
        weights[-1] = log_shares - log_shares.mean()
        if start is not None:
            weights = self._weights(start)
        order = np.argsort(strengths, kind="stable").tolist()
        size = max(1, GROUP[self.device.type] // (len(self.labels) * self.num_classes))
        known: list[torch.Tensor] = []
        memory: Memory | None = None
        penalty = 0.0
        models: dict[int, LinearModel] = {}
        iterations: dict[int, int] = {}
        for group in (order[first : first + size] for first in range(0, len(order), size)):
            penalties = (2 if self.num_classes == 2 else 1) / (
                torch.tensor([strengths[i] for i in group], dtype=torch.float64) * len(self.labels)
            )
            objective = _Objective(self, penalties.to(self.device))
            if memory is not None:
                memory = memory.shifted(((penalties[0] - penalty) * self.penalized).float())
            if size == 1 and len(known) == 2:
                weights = 2 * known[1] - known[0]  # on as from the one before
            points = weights[:, None].repeat(1, len(group), 1)
            found, counts, memory = minimize(
                objective, points, -float(shares @ log_shares), max_iterations, tolerance, memory
            )
            memory, penalty = (memory, float(penalties[0])) if size == 1 else (None, 0.0)
            weights = found[:, -1]
            known = [*known[-1:], weights]
            models |= {i: self._model(found[:, place]) for place, i in enumerate(group)}
            iterations |= dict(zip(group, counts, strict=True))
        return PathFit([models[i] for i in range(len(order))], [iterations[i] for i in range(len(order))])

    def _model(self, weights: torch.Tensor) -> LinearModel:
        """Return the model for the original features from weights [d + 1, K]; what all classes share is subtracted."""
        own = weights.double() - weights.double().mean(1, keepdim=True)
        turned = self.axes @ own[:-1]
        return LinearModel(turned.float().cpu().numpy(), (own[-1] - self.mean @ turned).float().cpu().numpy())

    def _weights(self, model: LinearModel) -> torch.Tensor:
        """Return the weights [d + 1, K] of a model; the inverse of `_model`."""
        weights, bias = (torch.from_numpy(part).to(self.device).double() for part in (model.weights, model.bias))
        return torch.cat([self.axes.T @ weights, (bias + self.mean @ weights)[None]]).float()


@dataclass(frozen=True)
class _Objective:
    """Mean cross-entropy plus half of each problem's penalty times the squared weights."""

    problem: LogisticProblem
    penalties: torch.Tensor

    def __call__(
        self, weights: torch.Tensor, problems: torch.Tensor, want_curvature: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return losses float64 [G], gradients, and the Hessians' diagonals (zeros where not wanted), of weights [d +
        1, G, K]."""
        penalized, n, (dim, group, classes) = self.problem.penalized, len(self.problem.labels), weights.shape
        flat, penalty = weights.reshape(dim, -1), self.penalties[problems]
        gradient, curvature, loss = torch.zeros_like(flat), torch.zeros_like(flat), torch.zeros_like(penalty)
        for columns, index in self._chunks(group, classes):
            logits = (columns @ flat).view(-1, group, classes)
            logits -= logits.amax(-1, keepdim=True)
            own = logits.gather(-1, index)
            # The own class stays out of the sum, so that tiny losses and errors keep their digits.
            powers = logits.exp_().scatter_(-1, index, 0)
            others = powers.sum(-1, keepdim=True)
            total = others + own.exp()
            loss += torch.where(own == 0, others.log1p(), total.log() - own).sum((0, 2), dtype=torch.float64)
            errors = powers.div_(total).scatter_(-1, index, -others / total).view(-1, group * classes)
            gradient.addmm_(columns.T, errors)
            if want_curvature:
                curvature.addmm_(columns.square().T, errors.abs() * (1 - errors.abs()))
        loss = loss / n + 0.5 * penalty * dot(weights * penalized, weights)
        gradient = gradient.view_as(weights) / n + scaled(penalty, penalized * weights)
        return (
            loss,
            gradient,
            curvature.view_as(weights) / n + scaled(penalty, penalized) + torch.finfo(torch.float32).tiny,
        )

    def _chunks(self, group: int, classes: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield chunks of columns [n, d + 1] and their labels [n, G, 1]."""
        rows = max(256, CHUNK[self.problem.device.type] // (group * classes))
        for columns, labels in zip(self.problem.columns.split(rows), self.problem.labels.split(rows), strict=True):
            yield columns, labels[:, None, None].expand(-1, group, 1)
