"""Several runs one after another on one engine. What is finished already is read, not repeated."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from fedimb.config.load import config_sha, from_json
from fedimb.config.schema import RunConfig
from fedimb.engine.open import open_engine
from fedimb.errors import FedimbError, RunFailed
from fedimb.run.launch import launch
from fedimb.run.progress import ProgressBar
from fedimb.run.result import RunResult


def finished(folders: Sequence[Path]) -> dict[str, Path]:
    """Finished runs directly below ``folders``, by the hash of what determines their numbers (`config_sha`).

    A run whose configuration this version can no longer read is left out: its numbers could not be vouched for.
    """
    found: dict[str, Path] = {}
    for result in sorted(path for folder in folders for path in folder.glob("*/result.json")):
        try:
            found[config_sha(from_json((result.parent / "config.json").read_text()))] = result.parent
        except (FedimbError, OSError):
            continue
    return found


def run_batch(configs: Sequence[RunConfig]) -> Iterator[RunResult | RunFailed]:
    """Run configurations in order, with one progress bar and the first one's engine.

    Yields:
        per configuration its result, or the RunFailed it ended with: one failed run does not end the others.
    """
    if not configs:
        return
    done = finished(sorted({Path(config.output_dir) / config.study for config in configs}))
    engine = open_engine(configs[0].engine)
    try:
        with ProgressBar(sum(config.rounds for config in configs if config_sha(config) not in done)) as progress:
            for config in configs:
                before = done.get(config_sha(config))
                try:
                    yield RunResult.read(before) if before else launch(config, engine, progress)
                except RunFailed as error:
                    yield error
    finally:
        engine.close()


def run_all(configs: Sequence[RunConfig]) -> Iterator[RunResult]:
    """`run_batch` for what is worth nothing unless it is whole: raises the first RunFailed."""
    for result in run_batch(configs):
        if isinstance(result, RunFailed):
            raise result
        yield result
