"""The stock aggregators' rules as their papers have them, on flat float64 vectors, and settings to try them with."""

import numpy as np

ARGS = {
    "fedavg": {},
    "fedprox": {"proximal_mu": 0.1},
    "fedavgm": {"server_learning_rate": 0.7, "server_momentum": 0.9},
    "fedadam": {"eta": 0.05, "beta_1": 0.8, "beta_2": 0.95, "tau": 1e-2},
    "fedadagrad": {"eta": 0.05, "tau": 1e-2},
    "fedyogi": {"eta": 0.05, "beta_1": 0.8, "beta_2": 0.95, "tau": 1e-2},
    "fedmedian": {},
    "fedtrimmedavg": {"beta": 0.3},
    "krum": {"num_malicious_nodes": 1},
    "multikrum": {"num_malicious_nodes": 1, "num_nodes_to_select": 3},
    "bulyan": {"num_malicious_nodes": 1},
    "qfedavg": {"client_learning_rate": 0.2, "q": 0.5},
}


class Oracle:
    """The twelve rules on flat float64 vectors."""

    def __init__(self, name, x):
        self.name, self.args, self.x = name, ARGS[name], x.copy()
        self.m, self.v = np.zeros_like(x), np.zeros_like(x)

    def step(self, server_round, updates, weights, losses):
        """updates [K, d] received weights; returns nothing, changes self.x [d]."""
        a, n = self.args, len(updates)
        mean = weights @ updates / weights.sum()
        delta = mean - self.x
        match self.name:
            case "fedavg" | "fedprox":
                self.x = mean
            case "fedavgm":  # Hsu et al.: v <- beta v + (w - mean); w <- w - eta v
                self.v = a["server_momentum"] * self.v - delta
                self.x = self.x - a["server_learning_rate"] * self.v
            case "fedadam" | "fedyogi" | "fedadagrad":  # Reddi et al., algorithm 2
                b1, b2 = a.get("beta_1", 0.0), a.get("beta_2", 0.0)
                self.m = b1 * self.m + (1 - b1) * delta
                eta = a["eta"]
                if self.name == "fedadagrad":
                    self.v = self.v + delta**2
                elif self.name == "fedyogi":
                    self.v = self.v - (1 - b2) * delta**2 * np.sign(self.v - delta**2)
                else:  # Flower adds Adam's bias correction, with the round plus one
                    self.v = b2 * self.v + (1 - b2) * delta**2
                    eta *= np.sqrt(1 - b2 ** (server_round + 1)) / (1 - b1 ** (server_round + 1))
                self.x = self.x + eta * self.m / (np.sqrt(self.v) + a["tau"])
            case "fedmedian":
                self.x = np.median(updates, axis=0)
            case "fedtrimmedavg":
                k = int(a["beta"] * n)
                self.x = np.sort(updates, axis=0)[k : n - k].mean(axis=0)
            case "krum":
                self.x = updates[self.nearest(updates, 1)[0]]
            case "multikrum":  # Flower weighs the chosen by their examples
                best = self.nearest(updates, a["num_nodes_to_select"])
                self.x = weights[best] @ updates[best] / weights[best].sum()
            case "bulyan":
                f = a["num_malicious_nodes"]
                chosen = updates[self.nearest(updates, n - 2 * f)]
                middle = np.median(chosen, axis=0)
                for j in range(len(self.x)):
                    order = np.argsort(np.abs(chosen[:, j] - middle[j]), kind="stable")
                    self.x[j] = chosen[order[: n - 4 * f], j].mean()
            case "qfedavg":  # Li et al., algorithm 2
                lipschitz, q = 1 / a["client_learning_rate"], a["q"]
                gradients = lipschitz * (self.x - updates)
                losses = losses + 1e-10
                h = q * losses ** (q - 1) * (gradients**2).sum(axis=1) + lipschitz * losses**q
                self.x = self.x - (losses[:, None] ** q * gradients).sum(axis=0) / h.sum()

    def nearest(self, updates, count):
        """Krum scores: squared distances to the n - f - 2 nearest others; indices of the smallest."""
        n, f = len(updates), self.args["num_malicious_nodes"]
        distances = ((updates[:, None] - updates[None]) ** 2).sum(axis=2)
        scores = [np.sort(np.delete(distances[i], i))[: n - f - 2].sum() for i in range(n)]
        return np.argsort(scores)[:count]
