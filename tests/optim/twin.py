"""A slow, obvious twin of the optimizers: numpy, one vector, every rule written out as the papers state it."""

from __future__ import annotations

import math

import numpy as np


class SGD:
    def __init__(self, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
        self.lr, self.mu, self.nesterov, self.wd = lr, momentum, nesterov, weight_decay
        self.m = None

    def step(self, x, g):
        g = g + self.wd * x
        if self.mu == 0:
            return x - self.lr * g
        self.m = g if self.m is None else self.mu * self.m + g
        return x - self.lr * (g + self.mu * self.m if self.nesterov else self.m)


class Adam:
    def __init__(self, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False):
        self.lr, (self.b1, self.b2), self.eps = lr, betas, eps
        self.wd, self.decoupled = weight_decay, decoupled
        self.m, self.v, self.t = 0.0, 0.0, 0

    def step(self, x, g):
        self.t += 1
        if self.decoupled:
            x = x - self.lr * self.wd * x
        else:
            g = g + self.wd * x
        self.m = self.b1 * self.m + (1 - self.b1) * g
        self.v = self.b2 * self.v + (1 - self.b2) * g**2
        m_hat = self.m / (1 - self.b1**self.t)
        v_hat = self.v / (1 - self.b2**self.t)
        return x - self.lr * m_hat / (np.sqrt(v_hat) + self.eps)


class RMSprop:
    def __init__(self, lr, alpha=0.99, eps=1e-8, momentum=0.0, weight_decay=0.0):
        self.lr, self.a, self.eps, self.mu, self.wd = lr, alpha, eps, momentum, weight_decay
        self.m, self.v = None, 0.0

    def step(self, x, g):
        g = g + self.wd * x
        self.v = self.a * self.v + (1 - self.a) * g**2
        update = g / (np.sqrt(self.v) + self.eps)
        if self.mu == 0:
            return x - self.lr * update
        self.m = update if self.m is None else self.mu * self.m + update
        return x - self.lr * self.m


class TwinLookahead:
    """``layers`` are `Layer` objects, innermost first: their fields are taken, and the rule is written out again."""

    def __init__(self, x, inner, layers):
        self.x, self.inner, self.layers, self.t = x.copy(), inner, layers, 0
        self.slow = [x.copy() for _ in layers]
        self.cache = [np.zeros_like(x) for _ in layers]

    def step(self, g):
        self.x = self.inner.step(self.x, g)
        self.t += 1
        for depth, layer in enumerate(self.layers):
            if self.t % math.prod(below.k for below in self.layers[: depth + 1]):
                break
            self.slow[depth] = (1 - layer.alpha) * self.slow[depth] + layer.alpha * self.x
            self.x = self.slow[depth].copy()
            if layer.pullback == "reset":
                self.inner.m = np.zeros_like(self.x)
            if layer.pullback == "pullback":
                self.inner.m = layer.alpha * self.inner.m + (1 - layer.alpha) * self.cache[depth]
                self.cache[depth] = np.copy(self.inner.m)
            for below in range(depth):
                self.slow[below] = self.slow[depth].copy()
                self.cache[below] = np.copy(self.inner.m) if self.inner.m is not None else self.cache[below]
