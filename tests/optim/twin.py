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


class Parts:
    """Several of them, each for so many entries of the vector."""

    def __init__(self, *parts):
        self.inners = [inner for _, inner in parts]
        self.ends = np.cumsum([count for count, _ in parts])[:-1]

    def step(self, x, g):
        pieces = zip(self.inners, np.split(x, self.ends), np.split(g, self.ends), strict=True)
        return np.concatenate([inner.step(own_x, own_g) for inner, own_x, own_g in pieces])

    @property
    def m(self):
        return np.concatenate([inner.m for inner in self.inners])

    @m.setter
    def m(self, value):
        for inner, own in zip(self.inners, np.split(value, self.ends), strict=True):
            inner.m = own


class TwinLookahead:
    """``layers`` are `Layer` objects, innermost first: their fields are taken, and the rule is written out again."""

    def __init__(self, x, inner, layers):
        self.x, self.inner, self.layers, self.t = x.copy(), inner, layers, 0
        self.slow = [x.copy() for _ in layers]
        self.b = [np.zeros_like(x) for _ in layers]
        self.cache = [[np.zeros_like(x) for _ in range(depth + 1)] for depth in range(len(layers))]

    def step(self, g):
        self.x = self.inner.step(self.x, g)
        self.t += 1
        for depth, layer in enumerate(self.layers):
            if self.t % math.prod(below.k for below in self.layers[: depth + 1]):
                break
            alpha = self.alpha(layer)
            self.move(depth, layer, alpha)
            self.x = self.slow[depth].copy()
            for level in range(depth + 1):  # 0 is the inner optimizer's momentum, l that of layer l
                self.act_on(level, depth, layer, alpha)
            for below in range(depth):
                self.slow[below] = self.slow[depth].copy()
                for level in range(below + 1):
                    kept = self.momentum(level)
                    self.cache[below][level] = np.copy(kept) if kept is not None else self.cache[below][level]

    def alpha(self, layer):
        if layer.schedule == "linear":
            return layer.alpha + (1 - layer.alpha) * self.t / layer.horizon
        if layer.schedule == "cubic":
            return 1 - (1 - layer.alpha) * (self.t / layer.horizon) ** 3
        return layer.alpha

    def move(self, depth, layer, alpha):
        mu = getattr(layer, "momentum", 0.0)
        if mu == 0:
            self.slow[depth] = (1 - alpha) * self.slow[depth] + alpha * self.x
            return
        d = self.slow[depth] - self.x
        self.b[depth] = mu * self.b[depth] + d
        self.slow[depth] = self.slow[depth] - alpha * (d + mu * self.b[depth] if layer.nesterov else self.b[depth])

    def momentum(self, level):
        return self.b[level - 1] if level else self.inner.m

    def act_on(self, level, depth, layer, alpha):
        momentum = self.momentum(level)
        if momentum is None or layer.pullback == "none":
            return
        if layer.pullback == "reset":
            now = np.zeros_like(self.x)
        else:
            now = alpha * momentum + (1 - alpha) * self.cache[depth][level]
            self.cache[depth][level] = np.copy(now)
        if level:
            self.b[level - 1] = now
        else:
            self.inner.m = now
