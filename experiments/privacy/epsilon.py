"""What the noise of dp.yaml promises: epsilon of each row, by the ledger that its runs keep.

    python experiments/privacy/epsilon.py      # runs nothing, takes seconds; writes epsilon.csv beside this file

One line per row and the row that shifts its logits, which has the same epsilon; "none" without noise.
"""

import csv
from pathlib import Path

from fedimb.privacy.ledger import Ledger, Spent
from fedimb.schema import RunConfig
from fedimb.study.cells import first_config
from fedimb.study.design import read_study

HERE = Path(__file__).parent
COLUMNS = ("label", "with_la_post", "clip", "noise", "delta", "clients", "rounds", "models", "coordinator")


def promised(config: RunConfig) -> dict[str, str]:
    """Epsilon against those who see the models, and against the coordinator, after all rounds."""
    if not config.privacy.noise:
        return {"models": "none", "coordinator": "none"}
    every, spent = list(range(config.clients.count)), Spent()
    ledger = Ledger(config.privacy, len(every), config.clients.participation)
    for _ in range(config.rounds):
        ledger.add(spent, every, len(every))
    found = ledger.stated(spent)
    return {"models": f"{found['epsilon']:.1f}", "coordinator": f"{found['epsilon_server']:.1f}"}


def shown(level: float | None) -> str:
    """A level in few digits."""
    return f"{level:g}" if level else "none"


def main() -> None:
    """Write the table."""
    study = read_study(HERE / "dp.yaml")
    with (HERE / "epsilon.csv").open("w", newline="") as opened:
        writer = csv.DictWriter(opened, COLUMNS)
        writer.writeheader()
        for label, row in study.all_rows.items():
            shifted = "la_post" if label == "fedavg" else f"{label}+la_post"
            if shifted not in study.all_rows:
                continue
            config = first_config(study, next(iter(study.setting_words)), row.words)
            line = {"label": label, "with_la_post": shifted, "rounds": config.rounds, "delta": config.privacy.delta}
            line |= {"clip": shown(config.privacy.clip), "noise": shown(config.privacy.noise)}
            writer.writerow(line | {"clients": config.clients.count} | promised(config))


if __name__ == "__main__":
    main()
