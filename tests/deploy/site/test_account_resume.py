"""A resumed run asks for the rounds after its checkpoint again, and every site sends what it sent before."""

from pathlib import Path

import pytest
from deployed import small_study, weights
from loopback import Loopback
from seals import flip, rows_of

from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.coordinator.serve import serve
from fedimb.deploy.site.approvals import receive_plan
from fedimb.rundir.result import RunResult

pytestmark = pytest.mark.slow

METHODS = {
    "scaffold": ("aggregator=scaffold",),
    "fedadam": ("aggregator=fedadam",),
    "scope": ("strategy=scope", "strategy.scope.warmup=1"),
    "fairfal": ("strategy=fairfal", "strategy.fairfal.cycles=2", "strategy.fairfal.budget=5"),
    "coreset": ("strategy=coreset", "strategy.coreset.warmup=1"),
    "ccvr": ("strategy=public", "strategy.public.use=ccvr"),
    "masks": ("prior.provenance=secure_sum", "evaluation.secure=true", "calibration=la_post"),
    "noise": ("privacy.clip=1", "privacy.noise=1", "aggregation_weight=uniform"),
    "estimated": ("prior.provenance=estimated", "calibration=la_post"),
    "every 2": ("checkpoint.every=2", "rounds=5"),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_run_resumed_from_the_checkpoint_before_is_answered_from_the_ledger(name: str, tmp_path: Path) -> None:
    study = small_study(tmp_path, {"linz": 60, "st-anna": 90, "va": 75}, "tracking=none", "rounds=4", *METHODS[name])
    last = study.config.rounds
    for home in study.homes.values():
        receive_plan(home, study.plan.to_json())
    study.approve()
    folder = study.new()

    def dies(site, message):
        step = message.content.get("x.fedimb", {})
        if (site, message.metadata.message_type, step.get("round")) == ("va", "train", last):
            raise OSError("the servers are gone")

    with pytest.raises(OSError, match="gone"):
        serve(folder.path, Loopback(study.homes.values(), 1, dies))
    flip(folder.path / "checkpoint.safetensors")
    serve(folder.path, Loopback(study.homes.values(), 2))
    for home in study.homes.values():
        lines = [one["facts"] for one in AuditLog(home.file("audit.jsonl")).lines() if one["kind"] == "message"]
        assert [line["text"] for line in lines if line["outcome"] == "error"] == []
        again = [line["round"] for line in lines if line.get("again")]
        assert again[-1] == (last - 1 if home.site == "va" else last)
        rounds = [line["records"] for line in lines if (line["type"], line.get("round")) == ("train", last - 1)]
        assert len(rounds) == 2
        assert rounds[0] == rounds[1]
    if name == "noise":
        return  # another run would draw other noise
    whole = study.new()
    serve(whole.path, Loopback(study.homes.values(), 3))
    mine, theirs = weights(RunResult.read(folder.path)), weights(RunResult.read(whole.path))
    assert {name: value.tobytes() for name, value in mine.items()} == {n: v.tobytes() for n, v in theirs.items()}
    assert rows_of(folder.path) == rows_of(whole.path)
