import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fedimb.config import compose as module
from fedimb.config.catalogue import Catalogue
from fedimb.config.compose import compose
from fedimb.errors import ConfigError
from fedimb.schema import RunConfig

REFUSED = {
    "lokal.epochs=3": "no setting 'lokal.epochs'. Did you mean 'local.epochs'?",
    "rouns=3": "no setting 'rouns'. Did you mean 'rounds'?",
    "local.epochs.x=1": "no setting 'local.epochs.x'. Write local.epochs=<value>.",
    "local={epoch: 3}": "no setting 'local.epoch'. Did you mean 'local.epochs'?",
    "data.imbalance_factr=3": "no setting 'data.imbalance_factr'. Did you mean 'data.imbalance_factor'?",
    "++checkpoint.zz=3": "no setting 'checkpoint.zz'. Valid: checkpoint.every.",
    "engine.threads=2": "no setting 'engine.threads'. Valid: engine.address, engine.device, engine.gpus_per_worker, "
    "engine.name, engine.trainer, engine.workers.",
    "strategy.fedsg.visits=1": "no setting 'strategy.fedsg.visits': there is no strategy 'fedsg'. Did you mean "
    "'fedssg'? Choose it first: strategy=fedssg or strategy=[plain,fedssg].",
    "strategy.plan.x=1": "no setting 'strategy.plan.x'. Did you mean 'strategy.plain.x'?",
    "calibration.toy_post.tau=3": "no setting 'calibration.toy_post.tau': calibration 'toy_post' is not "
    "chosen. Choose it first: calibration=toy_post or calibration=[none,toy_post].",
    "loss=[ce]": "cannot use 'loss=[ce]': loss takes one name. Write loss=<name>.",
    "loss=3": "cannot use 'loss=3': loss takes one name. Write loss=<name>.",
    "calibration=[none,none]": "cannot use 'calibration=[none,none]': 'none' is given twice; name it once",
    "x": "cannot read 'x': expected key=value",
    "balanced_softmax": "cannot read 'balanced_softmax': expected key=value; it is a loss, chosen by "
    "loss=balanced_softmax",
    "mine.yaml": "cannot read 'mine.yaml': expected key=value. A YAML of settings goes into a folder per group, as in "
    "DIR/loss/mine.yaml: --config-dir DIR loss=mine; a study is run by fedimb compare mine.yaml",
    "device=cuda": "no setting 'device'. Did you mean 'engine.device'?",
    "clip=3": "no setting 'clip'. Did you mean 'prior.clip' or 'privacy.clip'?",
    "local.seed=3": "no setting 'local.seed'. Did you mean 'seed'?",
    "local.count=3": "no setting 'local.count'. Did you mean 'clients.count'?",
    "query=badge": "cannot use 'query=badge': a query is chosen by strategy=active "
    "'strategy.active.query={name: badge}'",
    "~seed": "cannot use '~seed': a setting cannot be removed; give it another value",
    "loss@foo=ce": "cannot use 'loss@foo=ce': '@' is not supported; write loss=<name>",
    "hydra.run.dir=3": "cannot use 'hydra.run.dir=3': fedimb does not read Hydra's own settings; remove it",
    "seed=1,2": "cannot use 'seed=1,2': several values for one run. Write seed=[a,b] for a list, quote "
    "text that contains a comma, or use fedimb sweep",
    "local.epochs=[1": "cannot read 'local.epochs=[1': no viable alternative at input '[1'. "
    "Quote text with special characters: key=\"'a: b'\"",
    "local.epochs=???": "'local.epochs' has no value: give one with local.epochs=...",
    "name=${nope}": "cannot resolve 'name': Interpolation key 'nope' not found",
}


@pytest.mark.parametrize("word", REFUSED)
def test_a_wrong_word_is_answered_in_one_line(word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([word])
    assert str(caught.value) == REFUSED[word]
    assert caught.value.exit_code == 2


def test_a_data_set_may_choose_what_suits_it_and_the_command_line_wins() -> None:
    plain, images = compose([]), compose(["data=cifar10"])
    assert (plain["model"]["name"], plain["local"]["lr"]) == ("mlp", 0.4)
    assert (images["model"]["name"], images["local"]["lr"], images["local"]["momentum"]) == ("cnn4conv", 0.05, 0.9)
    assert images["data"].keys() == plain["data"].keys()
    assert images.keys() == plain.keys()
    for words in (["model=mlp", "data=cifar10"], ["data=cifar10", "model=mlp"]):
        given = compose(["local.lr=0.3", *words])
        assert given["model"] == plain["model"]
        assert (given["local"]["lr"], given["local"]["momentum"]) == (0.3, 0.9)


def test_an_unknown_option_lists_the_valid_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"^no sampler 'shufle'\. Did you mean 'shuffle'\? Valid: .*shuffle"
    ) as caught:
        compose(["sampler=shufle"])
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"^no calibration 'la_pst'\. Did you mean 'la_post'\?"):
        compose(["calibration=[none,la_pst]"])


@pytest.mark.parametrize(
    ("word", "instead"),
    [
        ("strategy=fedavg", "it is an aggregator, chosen by aggregator=fedavg. Valid: active, "),
        ("strategy=[scope,fedprox]", "it is an aggregator, chosen by aggregator=fedprox."),
        ("aggregator=scope", "it is a strategy, chosen by strategy=scope."),
        ("strategy=ray", "it is an engine, chosen by engine=ray."),
        ("loss=digits", "it is a data set, chosen by data=digits."),
        ("loss=flip", "it is an augmentation, chosen by local.augmentation=[flip]."),
        ("aggregator=proximal", "it is an objective, chosen by aggregator.objectives=[proximal]."),
        ("calibration=focal", "it is a loss, chosen by loss=focal."),
        ("loss=margin", "it is a query, chosen by strategy=active 'strategy.active.query={name: margin}'."),
        ("sampler=flow", "it is a generator, chosen by strategy=fedssg 'strategy.fedssg.generator={name: flow}'."),
        ("strategy=class_balanced", "it is a loss, chosen by loss=class_balanced, or a sampler, chosen by sampler="),
    ],
)
def test_a_name_of_another_kind_is_answered_with_the_words_that_choose_it(word: str, instead: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([word])
    assert f"': {instead}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_words_that_choose_a_part_work() -> None:
    from fedimb import registry
    from fedimb.config.validate import validate

    for kind, name in [
        ("aggregator", "fedprox"),
        ("augmentation", "flip"),
        ("objective", "moon"),
        ("query", "margin"),
        ("coreset", "herding"),
        ("generator", "flow"),
        ("source", "digits"),
        ("encoder", "random_conv"),
    ]:
        words = registry.chosen_by(kind, name).partition(" (or ")[0].replace("'", "").replace(": ", ":").split()
        words = [*(["strategy=coreset"] if kind == "encoder" else []), *words]
        validate(compose(words))


def test_an_unknown_top_level_key_lists_settings() -> None:
    with pytest.raises(ConfigError, match=r"^no setting 'zzz\.q'\. Valid: aggregation_weight, aggregator, "):
        compose(["+zzz.q=1"])


def test_defaults_are_plain_python() -> None:
    config = compose([])
    assert list(config["strategy"]) == ["plain"]
    assert config["loss"] == {"name": "ce"}
    assert config["clients"]["deadline_s"] is None
    assert type(config) is dict
    assert type(config["model"]["hidden"]) is list
    assert "hydra" not in config


def test_values_and_lists_of_parts(toys: list[Path]) -> None:
    config = compose(
        [
            "strategy=[toy_b,toy_a]",
            "calibration=[toy_post,none]",
            "strategy.toy_a.warmup=7",
            "local={lr: .1}",
        ],
        toys,
    )
    assert list(config["strategy"].items()) == [("toy_b", {}), ("toy_a", {"warmup": 7})]
    assert list(config["calibration"]) == ["toy_post", "none"]
    assert (config["local"]["lr"], config["local"]["epochs"]) == (0.1, 5)


def test_interpolation_follows_the_value_set() -> None:
    config = compose(["aggregator=fedprox", "aggregator.proximal_mu=0.3"])
    assert config["aggregator"]["objectives"] == [{"name": "proximal", "mu": 0.3}]


def test_a_renamed_setting_works_and_names_the_new_one(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning, match=r"aggregator\.terms is called aggregator\.objectives now"):
        config = compose(["aggregator=fedprox", "aggregator.terms=[moon]"])
    assert config["aggregator"] == {"name": "fedprox", "proximal_mu": 0.01, "objectives": ["moon"]}
    (tmp_path / "aggregator").mkdir()
    (tmp_path / "aggregator" / "old.yaml").write_text("name: old\nterms: [moon]\n")
    with pytest.warns(DeprecationWarning, match=r"aggregator\.terms is called aggregator\.objectives now"):
        assert compose(["aggregator=old"], [tmp_path])["aggregator"] == {"name": "old", "objectives": ["moon"]}


@pytest.mark.parametrize("word", ["loss.gamma=2", "+loss.gamma=2"])
def test_arguments_of_a_part_are_let_through(word: str) -> None:
    assert compose([word])["loss"] == {"name": "ce", "gamma": 2}


def test_a_mapping_with_a_name_replaces() -> None:
    test = compose(["data.test={name: stratified, fraction: 0.2}"])["data"]["test"]
    assert test == {"name": "stratified", "fraction": 0.2}


def test_results_are_independent() -> None:
    compose([])["model"]["hidden"].append(1)
    assert compose([])["model"]["hidden"] == [48]


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "mine.yaml").write_text("name: mine\n")
    assert compose(["loss=mine"], [tmp_path])["loss"] == {"name": "mine"}
    (tmp_path / "loss" / "mine.yaml").write_text("name: mine\ngamma: 2\n")
    assert compose(["loss=mine"], [tmp_path])["loss"] == {"name": "mine", "gamma": 2}
    with pytest.raises(ConfigError, match="no loss 'mine'"):
        compose(["loss=mine"])


@pytest.mark.parametrize("text", ["name: [1\n", "name: a\nname: b\n", "defaults: [nothing]\n"])
def test_a_broken_file_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "broken.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"^cannot compose the configuration: .") as caught:
        compose(["loss=broken"], [tmp_path])
    assert "\n" not in str(caught.value)


def test_folder_names_with_spaces_and_quotes(tmp_path: Path) -> None:
    folder = tmp_path / "my 'own' é"
    (folder / "loss").mkdir(parents=True)
    (folder / "loss" / "mine.yaml").write_text("name: mine\n")
    assert compose(["loss=mine"], [folder])["loss"] == {"name": "mine"}


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no configuration folder '.*nowhere': create it"):
        compose([], [tmp_path / "nowhere"])


def _install(folder: Path, module_name: str) -> None:
    info = folder / "elsewhere-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[fedimb.configs]\nelsewhere = {module_name}\n")


def test_an_installed_package_brings_its_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path, "elsewhere_confs")
    groups = tmp_path / "elsewhere_confs"
    (groups / "strategy").mkdir(parents=True)
    (groups / "__init__.py").write_text("")
    (groups / "strategy" / "afar.yaml").write_text("# @package strategy.afar\nrate: 0.5\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert compose(["strategy=[afar,plain]"])["strategy"] == {"afar": {"rate": 0.5}, "plain": {}}
    assert "afar" in Catalogue().options("strategy")
    assert "strategy" in Catalogue().groups()


def test_a_package_that_promises_too_much_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path, "not_there_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"declares configurations in 'not_there_at_all'.*reinstall or uninstall"):
        compose([])


def test_a_surrounding_hydra_application_keeps_its_state(tmp_path: Path) -> None:
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    (tmp_path / "config.yaml").write_text("theirs: 1\n")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        before = GlobalHydra.instance().hydra
        module._composed.clear()
        assert compose(["seed=9"])["seed"] == 9
        assert GlobalHydra.instance().hydra is before
        assert hydra.compose("config") == {"theirs": 1}


def by_choice_and_by_hydra(groups: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[str | None, str]:
    """A combination put together from compositions of one choice each, and composed as a whole."""
    monkeypatch.setattr(module, "_asked", set(groups))
    catalogue = Catalogue()
    found = module._by_choice(catalogue, groups, catalogue.fingerprint())
    whole = json.dumps(module._hydra(catalogue.searchpath, groups))  # as texts: the order of keys counts
    return None if found is None else json.dumps(found), whole


@pytest.mark.parametrize(
    "groups",
    [
        ["engine=inline", "aggregator=fedprox", "loss=focal"],
        ["data=cifar10", "strategy=[coreset,scope]", "calibration=[none,la_post]"],
        ["strategy=[scope,active]", "data=wine_quality", "tracking=none", "sampler=class_balanced"],
    ],
)
def test_a_combination_is_put_together_from_its_choices(groups: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found, whole = by_choice_and_by_hydra(groups, monkeypatch)
    assert found == whole


def test_choices_that_change_the_same_part_are_composed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    found, whole = by_choice_and_by_hydra(["data=cifar10", "model=mlp"], monkeypatch)
    assert found is None
    assert json.loads(whole)["model"]["name"] == "mlp"
    for _ in range(2):
        assert compose(["data=cifar10", "model=mlp", "engine=inline"])["model"]["name"] == "mlp"


@pytest.mark.slow  # a minute: Hydra composes each combination
def test_every_option_in_some_combination_is_put_together_as_hydra_does(monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = Catalogue()
    options = {group: catalogue.options(group) for group in RunConfig.model_fields if catalogue.options(group)}
    for turn in range(max(map(len, options.values()))):
        chosen = [f"{group}={names[turn % len(names)]}" for group, names in options.items()]
        for groups in (chosen, chosen[::-2], [word for word in chosen if not word.startswith(("data=", "model="))]):
            found, whole = by_choice_and_by_hydra(groups, monkeypatch)
            assert found in (None, whole), groups


def test_threads_do_not_disturb_each_other() -> None:
    module._composed.clear()
    found: dict[int, int] = {}
    losses = ["ce", "balanced_softmax"]

    def one(seed: int) -> None:
        config = compose([f"seed={seed}", f"loss={losses[seed % 2]}"])
        found[config["seed"]] = losses.index(config["loss"]["name"])

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {seed: seed % 2 for seed in range(6)}


def test_works_from_any_folder(tmp_path: Path) -> None:
    code = "from fedimb.config.compose import compose; print(compose(['seed=4'])['seed'])"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "4"
    assert list(tmp_path.iterdir()) == []


def test_values_do_not_compose_the_groups_again(monkeypatch: pytest.MonkeyPatch) -> None:
    compose(["sampler=shuffle"])
    monkeypatch.setattr(module, "_hydra", lambda *_: pytest.fail("composed the same groups twice"))
    assert [compose(["sampler=shuffle", f"seed={seed}"])["seed"] for seed in range(3)] == [0, 1, 2]


def test_folders_of_the_environment_serve_every_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, rate in (("given", 0.5), ("always", 0.25)):
        (tmp_path / folder / "sampler").mkdir(parents=True)
        (tmp_path / folder / "sampler" / "mine.yaml").write_text(f"name: rfs\nthreshold: {rate}\n")
    monkeypatch.setenv("FEDIMB_CONFIG_DIR", str(tmp_path / "always"))
    assert compose(["sampler=mine"])["sampler"] == {"name": "rfs", "threshold": 0.25}
    assert compose(["sampler=mine"], [tmp_path / "given"])["sampler"]["threshold"] == 0.5
    monkeypatch.setenv("FEDIMB_CONFIG_DIR", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="no configuration folder"):
        compose(["sampler=mine"])


@pytest.mark.parametrize(
    "words", [["data=yeast", "data.n_max=80"], ["data.long_tail=natural", "data.imbalance_factor=5"]]
)
def test_a_word_that_shapes_no_tail_is_refused(words: list[str]) -> None:
    with pytest.raises(
        ConfigError, match=r"changes nothing with data.long_tail=natural, .* data.long_tail=exponential"
    ):
        compose(words)


def test_a_yaml_s_own_values_do_not_hinder_a_natural_tail() -> None:
    assert compose(["data=digits", "data.long_tail=natural"])["data"]["n_max"] == 110
    assert compose(["data=yeast", "data.long_tail=step", "data.n_max=80"])["data"]["n_max"] == 80
