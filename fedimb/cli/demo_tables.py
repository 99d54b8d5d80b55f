"""The demo: baselines and strategies on long-tailed digits, in three tables."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fedimb.cli.output.studies import DemoFinished, study_runs
from fedimb.cli.study import charts, default_workers, report_failures
from fedimb.config.load import from_json
from fedimb.data.prepare import prepare
from fedimb.errors import ConfigError
from fedimb.report.plots import comparison_figure
from fedimb.report.study_tables import run_rows, study_table
from fedimb.study.cells import plan
from fedimb.study.compare import Compared, compare, study_folder
from fedimb.study.design import BarSettings, Row, Study
from fedimb.study.results import FINAL_ROUND, StudyResults
from fedimb.tracking.sender import Sender

ROWS = {
    "fedprox": ("aggregator=fedprox",),
    "fedprox+la_post": ("aggregator=fedprox", "calibration=la_post"),
    "fedprox+tau": ("aggregator=fedprox", "calibration=tau"),
    "balanced_softmax": ("loss=balanced_softmax",),
    "scope": ("strategy=scope",),
}
REFERENCES = ["majority", "local_mean", "fedavg", "la_post", "uniform+la_post", "tau", "ncm", "lda"]

LABELS = (
    "data.n_max=114",
    "data.imbalance_factor=20",
    "clients.count=4",
    "partition=dir_balance",
    "partition.alpha=0.1",
    "rounds=125",
    "local.epochs=3",
    "evaluation.every=25",
    "evaluation.last_k=1",
)
"""The second table: four clients, each with ten rows labelled per cycle, for five cycles."""
LABEL_ROWS = {
    "random": ("strategy=active",),
    "random+la_post": ("strategy=active", "calibration=la_post"),
    "fairfal": ("strategy=fairfal",),
    "fairfal+la_post": ("strategy=fairfal", "calibration=la_post"),
}
SERVER = (
    "data=digits_devices",
    "data.public=30",
    "clients.count=6",
    "partition=site_dirichlet",
    "local.lr=0.2",
    "evaluation.every=5",
    "evaluation.last_k=1",
)
"""The third table: six clients with three devices, and a server with its own labelled rows. These rows alone are worth
a lot, so its results cannot be compared with those of the first table."""
SERVER_ROWS = {
    "fedssg": ("strategy=fedssg", "strategy.fedssg.training.steps=300"),
    "public_only": ("strategy=public", "strategy.public.use=only"),
    "public_share": ("strategy=public", "strategy.public.use=share"),
}


def study_of(seeds: int, name: str) -> Study:
    """The first part of the demo as a study.

    Raises:
        ConfigError: no seed.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds must be at least 1; got {seeds}")
    rows = {label: Row(words=words) for label, words in ROWS.items()}
    bar = BarSettings(min_counts=(1,))
    return Study(name=name, about="fedimb demo", rows=rows, references=REFERENCES, seeds=seeds, bar=bar)


def label_study(seeds: int, name: str) -> Study:
    """The second part: what a small budget of labels is worth."""
    rows = {label: Row(words=words) for label, words in LABEL_ROWS.items()}
    about = "fedimb demo: active learning"
    return Study(name=name, about=about, base=LABELS, rows=rows, references=["fedavg"], seeds=seeds)


def server_study(seeds: int, name: str) -> Study:
    """The third part: synthetic samples, compared with simpler uses of the rows they are learned from."""
    rows = {label: Row(words=words) for label, words in SERVER_ROWS.items()}
    about = "fedimb demo: synthetic samples"
    return Study(name=name, about=about, base=SERVER, rows=rows, references=["fedavg", "la_post"], seeds=seeds)


def demo(overrides: Sequence[str], seeds: int, sender: Sender | None = None) -> DemoFinished:
    """Run the demo and print its tables. The exit code is 1 if a run failed (the table shows which).

    Args:
        overrides: settings of the first table's rows.
        sender: sends all runs to MLflow; None: each table starts one, if its runs are tracked.
    """
    study = study_of(seeds, time.strftime("demo-%Y%m%d-%H%M%S"))
    labels, server = label_study(seeds, f"{study.name}.labels"), server_study(seeds, f"{study.name}.server")
    tasks = plan(study, None, overrides)[1]
    runs = sum(task.kind == "run" for task in tasks)
    print(f"{len(study.labels)} rows, {seeds} seeds: {runs} runs, several at a time", file=sys.stderr)
    workers = replace(default_workers(study_folder(tasks)), sender=sender)
    done = compare(study, overrides, workers, " ".join(["fedimb demo", *overrides]), show=_show_first)
    rows, folder = run_rows(done.results), done.folder
    if all(row["status"] != "finished" for row in rows):
        return _finished([done], [])
    from fedimb.report.bar_text import bar_csv, bar_table
    from fedimb.report.html.page import page
    from fedimb.study.statistics import statistics

    found = statistics(done.results)
    (folder / "report.html").write_text(page(done.results, found))
    bar_csv(found, folder / "against_bar.csv")
    print(f"\n{bar_table(done.results, found)}")
    output = [word for word in overrides if word.startswith(("output_dir=", "tracking"))]
    asked = compare(labels, output, workers, "fedimb demo")
    print(f"\nactive learning: labels were requested for {_found(asked.results)}")
    print(study_table(asked.results))
    made = compare(server, output, workers, "fedimb demo")
    print(f"\nsynthetic samples: {_held(server)}; fedavg and la_post use only the clients' rows")
    print(study_table(made.results))
    print(f"\npicture: {comparison_figure(rows, folder / 'comparison.png')}")
    print(f"numbers: {folder / 'rows.csv'}")
    print(f"report:  {folder / 'report.html'}")
    if shown := charts(done.results):
        print(f"charts:  {shown[0]}\n         {shown[1]}")
    return _finished([done, asked, made], [folder / name for name in ("comparison.png", "rows.csv", "report.html")])


def _show_first(results: StudyResults) -> None:
    """Print the first table as soon as its rows are there; what they are against the bar comes later."""
    if not any(result.status == "finished" for result in results.results):
        return
    print(study_table(results))
    seeds = len({result.seed for result in results.results})
    what = "of the final round" if FINAL_ROUND in results.facts else "mean of the last scored rounds"
    print(f"\nscores: {what}, on the test set; +-: 95 % t interval over {seeds} seeds", flush=True)


def _finished(parts: Sequence[Compared], files: Sequence[Path]) -> DemoFinished:
    """List failures, and put the parts that were done together."""
    failures = [line for part in parts for line in part.failures]
    runs = [study_runs(part.results) for part in parts] + [[], []]
    return DemoFinished(
        folder=str(parts[0].folder),
        strategies=runs[0],
        active_learning=runs[1],
        synthetic_samples=runs[2],
        failures=failures,
        files=list(map(str, files)),
        exit_code=report_failures(failures),
    )


def _found(results: StudyResults) -> str:
    """How many labels the rows of the table used."""
    used = {label: [r.score("labels") for r in results.of("default", label)] for label in ("fedavg", "random")}
    whole, few = (sum(values) / len(values) for values in used.values())
    return f"{few:.0f} of {whole:.0f} rows, 10 per client and cycle (fedavg: all of them)"


def _held(study: Study) -> str:
    """How many rows the server and the clients have, with the first seed."""
    config = from_json(plan(study)[1][0].config)
    federation = prepare(config.data, config.partition, config.clients.count, config.seed)
    clients = sum(len(rows) for rows in federation.train)
    return f"the server has {len(federation.public)} labelled (public) rows, the clients have {clients}"
