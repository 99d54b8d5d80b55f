"""FedSSG and devices the server has no rows of."""

from fedssg_runs import metrics_of, report_of
from small_runs import launch_in

IMAGES = (
    *("data=digits_devices", "partition=site_dirichlet", "clients.count=3", "engine=inline", "data.n_max=60"),
    *("strategy=fedssg", "strategy.fedssg.training.steps=2", "strategy.fedssg.generator={name: flow, widths: [8, 8]}"),
    *("strategy.fedssg.pretrain=0", "strategy.fedssg.screen=false", "data.public=20", "rounds=1"),
)


def test_a_device_the_server_lacks_takes_the_colour_clients_describe(tmp_path, monkeypatch):
    import fedimb.serverapp.server as server

    original = server.public_rows

    def without_device_2(federation):
        rows = original(federation)
        kept = rows.d != 2
        return server.PublicRows(rows.x[kept], rows.y[kept], rows.d[kept], rows.domains)

    monkeypatch.setattr(server, "public_rows", without_device_2)
    words = (*IMAGES, "strategy.fedssg.force=true")
    plain = launch_in(tmp_path, *words)
    styled = launch_in(tmp_path, *words, "strategy.fedssg.style=true", "study=styled")
    assert report_of(plain)["by_device"][2] == 0  # nothing is planned that would come out as something else
    assert report_of(styled)["by_device"][2] > 0
    assert "comm/up_bytes/fedssg_coverage" in metrics_of(styled)[0]
    assert (styled.folder / "artifacts" / "fedssg_samples.png").read_bytes()[:4] == b"\x89PNG"
