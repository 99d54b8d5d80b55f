"""What a FedSSG run left behind."""

import json

from fedimb.rundir.folder import RunFolder


def report_of(result):
    """fedssg.json."""
    return json.loads((result.folder / "artifacts" / "fedssg.json").read_text())


def metrics_of(result):
    """Metrics of each round."""
    return [line["metrics"] for line in RunFolder(result.folder).metrics()]
