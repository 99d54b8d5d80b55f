"""Sends a run folder to MLflow: one MLflow run per row, each point once.

Everything happens under the folder's lock, so a training run and `fedimb track sync` never send at the same time.
Errors are not caught here; `fedimb.tracking.mlflow` protects the training run from them.
"""

import hashlib
import posixpath
import re
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fedimb.errors import DataError, FedimbError
from fedimb.plain import JsonObject
from fedimb.tracking import store
from fedimb.tracking.folder import (
    Point,
    artifacts_digest,
    first_time,
    identity_tags,
    parse,
    read_rows,
    read_status,
    read_suspicions,
)
from fedimb.tracking.lock import locked
from fedimb.tracking.naming import SETTING_TAG, run_name, setting_of
from fedimb.tracking.state import EVERY_STEP, IDENTITY_FILE, MetricsReader, State, identity, load, save
from fedimb.tracking.view import NOTE_TAG, experiment_note, run_note

if TYPE_CHECKING:
    pass

FOLDER_TAG = "fedimb.run_folder_id"
ROW_TAG = "fedimb.row"
STATUS_TAG = "fedimb.status"
SUSPECT_TAG = "fedimb.suspect"
ALARM_TAG = "fedimb.alarm"
STATUSES = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}  # others stay RUNNING
_BATCH = 1000  # MLflow's limit of metrics in one request
_ENTRIES = 100  # MLflow's limit of parameters and tags in one request
_SEGMENT = 5000  # points between two records of progress
_VALUE, _TAG_VALUE = 6000, 5000  # characters MLflow keeps of a parameter and of a tag (older servers: 5000)


T = TypeVar("T")


class Projection:
    """One run folder and the store it is sent to."""

    def __init__(self, folder: Path, uri: str, experiment: str, patient: bool = False, reopen: bool = False) -> None:
        """``patient``: see `store.connect`. ``reopen``: the run continues; show it as RUNNING again."""
        self.folder, self.uri, self.experiment = Path(folder), uri, experiment
        self._patient, self._reopen = patient, reopen
        self._client: Any = None
        self._experiment_id = ""
        self._reader = MetricsReader(self.folder)
        self._steps: dict[tuple[str, str], set[int]] = {}  # (run id, metric) -> steps MLflow already has

    def push(
        self, wait_s: float, lines: bool = True, close: bool = False, budget_s: float | None = None
    ) -> tuple[int, State]:
        """Create missing runs, send unsent points, and with ``close`` the artifacts and the run's status.

        Args:
            wait_s: seconds to wait for another process that is sending this folder.
            budget_s: stop after that many seconds, at a recorded position; None: send everything.

        Returns:
            (number of points sent now, the recorded state).

        Raises:
            Busy: another process is sending.
            DataError: a file of the folder cannot be read.
            FedimbError: the store cannot be used.
            Exception: whatever MLflow raises if a server or database does not respond.
        """
        with locked(self.folder / IDENTITY_FILE, wait_s):
            state = load(self.folder) or State()
            if (state.uri, state.experiment) != (self.uri, self.experiment):
                state.uri, state.experiment = self.uri, self.experiment
                state.forget()
                save(self.folder, state)  # before any network access, so that a sync knows where to send
            try:
                self._connect(state)
                self._create_runs(state)
                sent = self._send(state, budget_s) if lines else 0
                if close:
                    self._close(state)
            except BaseException:
                self._client = None
                self._steps.clear()  # some may not have arrived: look them up again
                self._reader.rewind()
                raise
            return sent, state

    def _connect(self, state: State) -> None:
        if self._client is not None:
            return
        self._experiment_id = store.prepare_store(self.uri, self.experiment, patient=self._patient)
        client = store.connect(self.uri, self._patient)
        if not state.runs:  # once per run folder
            note = experiment_note(self.experiment, self.folder.absolute().parent)
            store.write_note(client, self._experiment_id, note)
        for label, run_id in state.runs.items():
            try:
                info = client.get_run(run_id).info
            except Exception as error:
                if store.error_code(error) != "RESOURCE_DOES_NOT_EXIST":
                    raise
                state.forget()  # the database was removed: send everything again
                break
            if info.lifecycle_stage != "active":
                raise FedimbError(
                    f"run {run_id} ({label}) was deleted in MLflow at {store.shown(self.uri)}; restore it"
                    f" with `mlflow runs restore --run-id {run_id}`"
                )
            if self._reopen and state.status not in ("", "running"):
                client.update_run(run_id, status="RUNNING")
                client.set_tag(run_id, STATUS_TAG, "running")
        if self._reopen:
            state.status = ""
        self._reopen = False
        save(self.folder, state)
        self._client = client

    def _create_runs(self, state: State) -> None:
        rows = read_rows(self.folder)
        if missing := [label for label in rows if label not in state.runs]:
            found = self._find()
            begin = first_time(self.folder) or int(time.time() * 1000)  # a late sync keeps the run's own time
            for label in missing:
                if label in found:  # the process died between create_run and the record of it
                    state.check_to_step = EVERY_STEP
                    state.runs[label] = found[label]
                else:
                    tags = {FOLDER_TAG: identity(self.folder), ROW_TAG: label}
                    info = self._client.create_run(
                        self._experiment_id, start_time=begin, tags=tags, run_name=run_name(label, rows[label])
                    ).info
                    state.runs[label] = info.run_id
                save(self.folder, state)
        for label in [label for label in rows if label not in state.described]:
            self._describe(state.runs[label], rows[label])
            state.described.append(label)
            save(self.folder, state)
        for label in [label for label in rows if label not in state.named]:
            self._name(state.runs[label], label, rows[label])
            state.named.append(label)
            save(self.folder, state)

    def _find(self) -> dict[str, str]:
        query = f"tags.`{FOLDER_TAG}` = '{identity(self.folder)}'"
        found: dict[str, str] = {}
        token = None
        while True:
            page = self._client.search_runs([self._experiment_id], query, page_token=token)
            for run in page:  # newest first: the oldest of a row wins
                found[run.data.tags.get(ROW_TAG, "")] = run.info.run_id
            token = page.token
            if not token:
                return found

    def _describe(self, run_id: str, row: JsonObject) -> None:
        """Send parameters and tags, 100 per request. MLflow does not allow changing parameters: old ones stay."""
        from mlflow.entities import Param, RunTag

        data = self._client.get_run(run_id).data
        params = [
            Param(safe_name(k), _text(v)[:_VALUE])
            for k, v in row.get("params", {}).items()
            if safe_name(k) not in data.params
        ]
        tags = [
            RunTag(k, _text(v)[:_TAG_VALUE])
            for k, v in row.get("tags", {}).items()
            if data.tags.get(k) != _text(v)[:_TAG_VALUE]
        ]
        entries: list[Param | RunTag] = params + tags
        for part in _chunks(entries, _ENTRIES):
            self._client.log_batch(
                run_id,
                params=[e for e in part if isinstance(e, Param)],
                tags=[e for e in part if isinstance(e, RunTag)],
            )

    def _name(self, run_id: str, label: str, row: JsonObject) -> None:
        """Give a run its setting; one that an earlier version named after its row alone gets its whole name."""
        run = self._client.get_run(run_id)
        if run.data.tags.get(SETTING_TAG) != (setting := setting_of(row)):
            self._client.set_tag(run_id, SETTING_TAG, setting)
        if NOTE_TAG not in run.data.tags:
            seed = run.data.tags.get("fedimb.seed", "?")
            self._client.set_tag(run_id, NOTE_TAG, run_note(label, seed, self.folder.absolute()))
        if run.info.run_name == label:  # not what a person called it
            self._client.update_run(run_id, name=run_name(label, row))

    def _send(self, state: State, budget_s: float | None) -> int:
        lines = self._reader.pending(state)
        place = f"{self.folder / 'metrics.jsonl'} at byte "
        parsed, byte = [], state.offset
        for line in lines:
            parsed.append(parse(line, f"{place}{byte}"))
            byte += len(line)
        for points in parsed:
            for point in points:
                if point.row not in state.runs:
                    raise DataError(f"{self.folder / 'metrics.jsonl'}: row '{point.row}' is not in rows.json")
                state.top_step = max(state.top_step, point.step)
        if not lines:
            return 0
        save(self.folder, state)  # before sending: see `state`
        stop = time.monotonic() + budget_s if budget_s is not None else None
        sent, first, held = 0, 0, 0
        for index, points in enumerate(parsed):
            held += len(points)
            if held < _SEGMENT and index + 1 < len(parsed):
                continue
            sent += self._log(state, [p for group in parsed[first : index + 1] for p in group])
            self._reader.confirm(state, lines[first : index + 1])
            save(self.folder, state)
            first, held = index + 1, 0
            if stop is not None and time.monotonic() > stop:
                break
        return sent

    def _log(self, state: State, points: list[Point]) -> int:
        """Send points with their stored timestamps: MLflow stores identical points only once."""
        from mlflow.entities import Metric

        batches: dict[str, list[Metric]] = defaultdict(list)
        for point in points:
            run_id, name = state.runs[point.row], safe_name(point.name)
            if point.step <= state.check_to_step:
                steps = self._known_steps(run_id, name)
                if point.step in steps:
                    continue
                steps.add(point.step)
            batches[run_id].append(Metric(name, point.value, point.time, point.step))
        for run_id, metrics in batches.items():
            for part in _chunks(metrics, _BATCH):
                self._client.log_batch(run_id, metrics=part)
        return sum(map(len, batches.values()))

    def _known_steps(self, run_id: str, name: str) -> set[int]:
        if (run_id, name) not in self._steps:
            history = self._client.get_metric_history(run_id, name)
            self._steps[(run_id, name)] = {metric.step for metric in history}
        return self._steps[(run_id, name)]

    def _close(self, state: State) -> None:
        root = self.folder / "artifacts"
        common = sorted(p for p in root.iterdir() if p.name != "rows") if root.is_dir() else []
        for label, run_id in state.runs.items():
            own_root = root / "rows" / label
            own = sorted(own_root.iterdir()) if own_root.is_dir() else []
            if (digest := artifacts_digest([*common, *own])) == state.artifacts.get(label):
                continue
            for path in [*common, *own]:
                if path.is_dir():
                    self._client.log_artifacts(run_id, str(path), artifact_path=path.name)
                else:
                    self._client.log_artifact(run_id, str(path))
            state.artifacts[label] = digest
            save(self.folder, state)
        suspect, alarms = read_suspicions(self.folder), read_suspicions(self.folder, "alarms")
        status, end = read_status(self.folder)
        if status == state.status:
            return
        tags = identity_tags(self.folder)  # the last of its code is imported during the run
        for label, run_id in state.runs.items():
            for name, text in tags.items():
                self._client.set_tag(run_id, name, text)
            self._client.set_tag(run_id, STATUS_TAG, status)
            if label in suspect:
                self._client.set_tag(run_id, SUSPECT_TAG, suspect[label][:_TAG_VALUE])
            if label in alarms:
                self._client.set_tag(run_id, ALARM_TAG, alarms[label][:_TAG_VALUE])
            if status in STATUSES:
                self._client.set_terminated(run_id, STATUSES[status], end_time=end)
        state.status = status
        save(self.folder, state)


def _text(value: Any) -> str:
    return "null" if value is None else str(value)


def _chunks(items: list[T], size: int) -> Iterable[list[T]]:
    return (items[at : at + size] for at in range(0, len(items), size))


_LENGTH = 250
_REFUSED = re.compile(r"[^\w.\- :/]")


def safe_name(name: str) -> str:
    """The name itself if MLflow accepts it for a metric or parameter, else a similar one that is still unique.

    MLflow refuses a whole batch because of one name with a bracket, an empty part or more than 250 characters; a short
    hash of the original distinguishes changed names.
    """
    close = posixpath.normpath(_REFUSED.sub("_", name)).replace("..", "_").strip("/")
    if close == name and close not in ("", ".") and len(name) <= _LENGTH:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{close[: _LENGTH - 9]}_{digest}"
