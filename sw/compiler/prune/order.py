"""Which groups of channels go first, and what the others' weights become without them.

`H` is the covariance of a linear's inputs. Three measures of what a group g is worth:

- "magnitude": `|W_g|^2`.
- "flap": `sum_j |W_j|^2 H_jj`, the fluctuation of what it adds to the results; its mean goes to
  the bias (An et al., FLAP, arXiv 2312.11983). Nothing else changes.
- "obs": `tr(W_g (H^-1)_gg^-1 W_g^T)`, the error that is left when all other inputs take up what
  they can (Hassibi and Stork, Optimal Brain Surgeon, for groups). One group after another: what is
  left then has other weights and another `H^-1`, so of two channels that say the same one stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sw.compiler.errors import CompileError
from sw.compiler.quantise.gptq import damped

__all__ = ["METHODS", "Moments", "check_method", "refitted", "removal_order"]

METHODS = ("obs", "flap", "magnitude")


def check_method(method: str) -> None:
    """Raises `CompileError` for a method that is none."""
    if method not in METHODS:
        raise CompileError(f"unknown method of pruning {method!r}: {', '.join(METHODS)}")


@dataclass(frozen=True)
class Moments:
    """Of a linear's inputs. mean: [K]. covariance: [K, K], sum over rows of the deviations."""

    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray) -> Moments:
        """x: [rows, K] float32."""
        mean = x.mean(axis=0, dtype=np.float64)
        deviations = x - mean.astype(np.float32)
        return cls(mean, (deviations.T @ deviations).astype(np.float64))


def removal_order(
    weight: np.ndarray, moments: Moments, groups: int, method: str, damping: float
) -> np.ndarray:
    """Numbers of the groups [groups], the one that is missed least first.

    weight: [N, K], its inputs in `groups` groups of K / groups. damping: of the covariance, as a
    fraction of its mean diagonal.
    """
    check_method(method)
    if method == "obs":
        return _surgeon(weight, damped(moments.covariance, damping), groups)
    energy = (weight.astype(np.float64) ** 2).sum(axis=0)
    if method == "flap":
        energy = energy * np.diag(moments.covariance)
    return np.argsort(energy.reshape(groups, -1).sum(axis=1), kind="stable")


def _surgeon(weight: np.ndarray, hessian: np.ndarray, groups: int) -> np.ndarray:
    """Order by "obs"; `W` and `H^-1` follow each removal by their closed forms."""
    width = weight.shape[1] // groups
    inverse = torch.from_numpy(np.linalg.inv(hessian))
    now = torch.from_numpy(weight.astype(np.float64))
    numbers, order = np.arange(groups), []  # numbers: of the groups that `inverse` still has
    while len(numbers):
        gone = []
        for _ in range(-(-len(numbers) // 8)):  # then what is gone is taken out of the arrays
            blocks = inverse.view(len(numbers), width, len(numbers), width)
            own = blocks.diagonal(dim1=0, dim2=2).permute(2, 0, 1)  # (H^-1)_gg: [groups, w, w]
            own = own.clone()
            own[gone] = torch.eye(width, dtype=own.dtype)
            parts = now.view(len(now), len(numbers), width).transpose(0, 1)  # [groups, N, w]
            cost = ((parts @ torch.linalg.inv(own)) * parts).sum(dim=(1, 2))
            cost[gone] = torch.inf
            least = int(cost.argmin())
            columns = slice(least * width, (least + 1) * width)
            moved = torch.linalg.solve(own[least], inverse[columns])  # [w, K]
            now.addmm_(now[:, columns].clone(), moved, alpha=-1)
            inverse.addmm_(inverse[:, columns].clone(), moved, alpha=-1)
            gone.append(least)
        order += numbers[gone].tolist()
        kept = np.setdiff1d(np.arange(len(numbers)), gone)
        columns = (kept[:, None] * width + np.arange(width)).reshape(-1)
        numbers, now = numbers[kept], now[:, columns].contiguous()
        inverse = inverse[columns][:, columns].contiguous()
    return np.array(order)


def refitted(
    weight: np.ndarray, moments: Moments, columns: np.ndarray, damping: float
) -> np.ndarray:
    """Weights [N, columns] that give most nearly, by least squares, what all of `weight` gives."""
    hessian = damped(moments.covariance, damping)
    wanted = hessian[columns] @ weight.T.astype(np.float64)
    return np.linalg.solve(hessian[np.ix_(columns, columns)], wanted).T
