"""Whole rounds: what buffers and garbage collection must survive."""

import numpy as np


def test_a_model_with_batch_norm_runs_to_its_end(tmp_path):
    """Its count of batches is an array without axes, of which NumPy makes a number at every sum."""
    from small_runs import launch_in

    words = ("model=resnet8", "model.norm=batch", "rounds=2", "clients.count=2", "data.imbalance_factor=5")
    result = launch_in(tmp_path, *words, "data.n_max=20", "engine=inline")
    assert np.isfinite(result.metrics["macro_recall"])


def test_rounds_do_not_keep_garbage_from_being_collected(tmp_path, monkeypatch):
    """A cycle made in every round is gone after some more rounds, without anybody asking for a collection."""
    import gc
    import weakref

    from small_runs import launch_in

    from fedimb.serverapp.training_rounds import TrainingRounds

    alive = []
    original = TrainingRounds.train

    class Cycle:
        pass

    def round_with_garbage(rounds, model, name):
        for _ in range(1000):
            one = Cycle()
            one.me = one
        alive.append(weakref.ref(one))
        del one
        return original(rounds, model, name)

    before = gc.get_threshold()
    gc.set_threshold(20_000, 2, 1000)  # the youngest two generations alone, every few rounds
    monkeypatch.setattr(TrainingRounds, "train", round_with_garbage)
    try:
        launch_in(tmp_path, "rounds=30", "engine=inline", "clients.count=2")
    finally:
        gc.set_threshold(*before)
    assert sum(ref() is not None for ref in alive[:10]) == 0
