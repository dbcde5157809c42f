"""The table [algorithm]: every name runs, is what the other sections or Python compose, and is refused with the line and the remedy."""

import re

import jax
import numpy as np
import optax
import pytest
from grouping import grouped, tiered
from tiny import after_a_round, edited, first_round, replaced

import fedjax_lite as fl
from fedjax_lite import cli
from fedjax_lite.configuration.build import build, parts
from fedjax_lite.configuration.data import load_data, outputs_of
from fedjax_lite.configuration.registry import names
from fedjax_lite.configuration.study import study_of
from fedjax_lite.configuration.table import ConfigError

TEXT = """\
name = "tiny"
[data]
name = "digits"
partition = { name = "dirichlet", clients = 4, alpha = 1.0 }
test = 0
central_test = 100
public = 50
[model]
name = "mlp"
hidden = [3]
[algorithm]
name = "fedavg"
[client]
optimizer = { name = "sgd", learning_rate = 0.1 }
batch_size = 50
shuffle = false
[sampling]
name = "everyone"
[engine]
name = "padded"
[run]
rounds = 2
evaluate_every = 1
"""
LESSONS = '{ optimizer = { name = "sgd", learning_rate = 0.1 }, steps = 3 }'
FAMILIES = 'families = [{ name = "mlp", hidden = [3], clients = 3 }, { name = "mlp", hidden = [], clients = 1 }]'
OF_FAMILIES = (('name = "mlp"\nhidden = [3]', FAMILIES),)
CLOCK = (("[engine]", "[clock]\ndevices = 'lognormal'\n[engine]"),)
# What each name of fl.algorithms needs beside its name: keys of [algorithm], and changes of the text.
NAMES = {
    "fedavg": ("server_learning_rate = { name = 'constant_schedule', value = 0.5, clock = 'round' }", ()),
    "fedavgm": ("momentum = 0.5\nnesterov = true", ()),
    "diloco": ("momentum = 0.5\nkeep_optimizer = true", (('"sgd", learning_rate = 0.1', '"adamw", learning_rate = 0.01'),)),
    "dpsgd": ("mixing = { name = 'ring' }\nform = 'adapt-then-combine'", ()),
    "fedsgd": ("", (("batch_size = 50\nshuffle = false\n", ""),)),
    "fedprox": ("mu = 0.1", ()),
    "scaffold": ("option = 1", ()),
    "feddyn": ("alpha = 0.1\nserver_learning_rate = 0.5", ()),
    "fednova": ("momentum = 0.5\nmu = 0.1\ntau_eff = 'steps'", ()),
    "fedadagrad": ("tau = 0.01", ()),
    "fedadam": ("b1 = 0.8\nb2 = 0.9\nconvention = 'keras'", ()),
    "fedyogi": ("server_learning_rate = { name = 'constant_schedule', value = 0.01, clock = 'round' }", ()),
    "fedcm": ("alpha = 0.3\nrho = 0.05", ()),
    "fedsam": ("rho = 0.1", ()),
    "fedadmm": ("rho = 0.5\nform = 'released'", ()),
    "scaffnew": ("p = 0.5", (("batch_size = 50\n", "batch_size = 50\nsteps = 2\n"),)),
    "fedlion": ("b1 = 0.8\nb2 = 0.9", ()),
    "fedspeed": ("rho = 0.1\nlam = 0.2\na = 0.5\ndual_mean = 'all'", ()),
    "fd": ("gamma = 0.2", ()),
    "feddf": (f"how = {LESSONS}\nensemble = 'mean_probabilities'", OF_FAMILIES),
    "fedmd": (f"digest = {LESSONS}\nensemble = 'sharpened'\neach_round = 20", OF_FAMILIES),
    "dsfl": (f"digest = {LESSONS}\nstudent = {{ name = 'mlp', hidden = [2] }}\ntemperature = 0.5", OF_FAMILIES),
    "fedgen": ("generator = { hidden = 4 }\ngenerator_steps = 2\ngenerator_optimizer = { name = 'sgd', learning_rate = 0.1 }", ()),
    "fedgkt": ("server_model = { name = 'mlp', hidden = [4] }\nserver_optimizer = { name = 'adam', learning_rate = 0.01 }", ()),
    "mime": ("beta = 0.5", ()),
    "mimelite": ("", ()),
    "fedlc": ("tau = 0.5\nfloor = 1e-8", ()),
    "fedrs": ("alpha = 0.25\nscale = 'graded'", ()),
    "moon": ("mu = 2\ntau = 1", ()),
    "agnostic_fedavg": ("gamma = 0.1\ndomains = [0, 0, 1, 2]\nupdate = 'projected'", ()),
    "qfedavg": ("q = 2", ()),
    "apfl": ("alpha = 0.25\nadaptive = false", ()),
    "ditto": ("lam = 0.1", ()),
    "ifca": ("clusters = 2\ninit_scale = 0.5", ()),
    "cfl": ("eps1 = 0.5\nrelative = true\nfirst_round = 1\nmax_clusters = 2\nlinkage = 'complete'\ngamma = 0.5\nby_examples = true", ()),
    "fedala": ("top = 'all'\nweight_rate = 0.5\npasses = 2\nshare = 0.5", ()),
    "fedproto": ("lam = 0.5\nby_examples = true", ()),
    "fedrod": ("personal = 'last layer'\ngamma = 0.5", ()),
    "pfedme": ("lam = 15\ninner_rate = 0.05\ninner_steps = 3\nserver_learning_rate = 1.5", ()),
    "per_fedavg": ("alpha = 0.01\nform = 'first order'", ()),
    "fedper": ("personal = 'last layer'", ()),
    "fedrep": ("personal = 'last layer'\nhead_epochs = 1", (("batch_size = 50\n", "batch_size = 50\nepochs = 2\n"),)),
    "fedbabu": ("fixed = 'last layer'", ()),
    "fedbn": ("", (("hidden = [3]", "hidden = [3]\nnorm = 'batch'"),)),
    "lg_fedavg": ("personal = 'Dense_0/.*'", ()),
    "local_only": ("", ()),
    "centralised": ("", ()),
    "fedbuff": ("buffer = 2\nwindow = 4\nstaleness_power = 1\ndivide_by = 'weights'\ntoo_old = 'drop'", CLOCK),
    "fedasync": ("alpha = 0.9\nstaleness = 'hinge'\na = 1\nb = 2\nrho = 0.1", CLOCK),
    "fedat": ("tiers = 2\nbuffer = 1\nmu = 0.1", CLOCK),
    "fedexp": ("eps = 0.01\nconvention = 'released'", ()),
}


@pytest.fixture
def config(tmp_path):
    """The text with pairs of it replaced, and overrides."""
    return lambda *replace, overrides=(): edited(tmp_path, TEXT, *replace, overrides=overrides)


def of_name(name):
    """The pairs that make the text one of an algorithm."""
    keys, pairs = NAMES[name]
    return ('"fedavg"', f'"{name}"\n{keys}'), *pairs


def test_every_name_has_its_configuration_here():
    assert NAMES.keys() == names("algorithm").keys() and {"mean", "Generator", "split_loss"}.isdisjoint(names("algorithm"))


@tiered("name", list(NAMES), ("fedavg", "fedsgd", "fd", "fedgkt", "scaffold", "moon", "dpsgd"))
def test_every_name_fits_together_with_the_other_sections(config, name):
    """Traced, with its evaluation, as fl.run and fl.plan begin; what it is evaluated with has an accuracy."""
    start = build(config(*of_name(name)))
    algorithm, data, params = start.args[:3]
    loss_fn = start.keywords["loss_fn"]
    shapes = jax.eval_shape(lambda params, data: fl.evaluate(loss_fn, algorithm.params(algorithm.init(params, jax.random.key(0))), data),
                            params, start.keywords["test"])  # fmt: skip
    assert {"loss", "accuracy"} <= shapes.keys()


@pytest.mark.deep
@grouped("name", list(NAMES))
def test_every_name_runs_plans_and_studies(tmp_path, capsys, name):
    file = tmp_path / "a.toml"
    file.write_text(replaced(TEXT, *of_name(name)))
    assert cli.main(["run", str(file), "--quiet", "--devices", "1", "--out", str(tmp_path / "run")]) == 0
    assert re.match(r"finished after 2 rounds(, \S+ virtual hours)?\n  test_accuracy", capsys.readouterr().out)
    assert cli.main(["plan", str(file), "--devices", "1"]) == 0
    assert "a round" in capsys.readouterr().out
    with pytest.raises(ValueError, match="private"):
        build(edited(tmp_path, TEXT, *of_name(name)), fl.privacy.budget.budget_table)()
    study = study_of(edited(tmp_path, TEXT, *of_name(name), ("[run]", "[grid]\nseeds = 2\n[run]")))(progress=False)
    assert study.results["test_accuracy"].shape == (2, 2) and np.isfinite(study.results["test_loss"]).all()


SECTIONS = '[aggregator]\nname = "weighted_mean"\n[server]\noptimizer = { name = "sgd", learning_rate = 0.5, momentum = 0.5 }\n'


@pytest.mark.deep
def test_it_composes_what_the_sections_would(config):
    """FedAvgM is [server] with momentum; with an aggregator and an uplink of their own sections too."""
    named = ('"fedavg"', '"fedavgm"\nmomentum = 0.5\nserver_learning_rate = 0.5')
    spelt = (('[algorithm]\nname = "fedavg"\n', SECTIONS),)
    found, expected = (two_rounds(config(*pairs)) for pairs in ((named,), spelt))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def two_rounds(config):
    """The model after two rounds."""
    source = load_data(config, 0)
    made = parts(config, source, outputs_of(config, source), 0)
    after = jax.jit(lambda data: fl.simulate(made.algorithm, data, made.params, made.sampler, rounds=2, key=made.key)[0].server)
    return after(source.train)


@pytest.mark.deep
@pytest.mark.parametrize("models", [True, False], ids=["feddf", "fedmd"])
def test_distillation_by_name_is_that_of_its_section(config, models):
    """The same clients, soft labels and lessons: the student's first parameters have one key in both."""
    student = 'student = { name = "mlp", hidden = [2] }\n'
    keys = f"how = {LESSONS}\n{student}" + ("" if models else f"digest = {LESSONS}\n")
    named = ('"fedavg"', f'"{"feddf" if models else "fedmd"}"\n{keys}')
    section = f"[distillation]\n{LESSONS[2:-2].replace(', steps', chr(10) + 'steps')}\n{student}"
    section += 'models = "weighted_mean"\n' if models else f"digest = {LESSONS}\n"
    spelt = ('[algorithm]\nname = "fedavg"\n', f'[aggregator]\nname = "mean"\n{section}')
    found, expected = (after_a_round(config(pairs))[0] for pairs in (named, spelt))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


def test_sections_give_their_arguments(config, monkeypatch):
    """What an algorithm is called with, of a file that says all it can."""
    seen = {}

    def spy(loss_fn, optimizer, learning_rate=None, *, batches, population, aggregator, uplink=None, server, engine=None, rho=1.0):
        seen.update(locals())
        return fl.federate(fl.sgd_work(loss_fn, optimizer, learning_rate=learning_rate), aggregator, server, batches=batches,
                           population=population, uplink=uplink, engine=engine)  # fmt: skip

    monkeypatch.setattr(fl.algorithms, "spy", spy, raising=False)
    monkeypatch.setattr(fl.algorithms, "__all__", [*fl.algorithms.__all__, "spy"])
    spy.__annotations__["return"] = fl.Algorithm
    client = (
        'optimizer = { name = "adam", learning_rate = { name = "constant_schedule", value = 0.1, clock = "step" } }\nuplink = "zero_nans"'
    )
    pairs = (
        ('"fedavg"', '"spy"\nrho = 2'),
        ('optimizer = { name = "sgd", learning_rate = 0.1 }', client),
        ("[sampling]", SECTIONS + "[sampling]"),
    )
    jax.eval_shape(*first_round(config(*pairs)))
    assert seen["rho"] == 2 and seen["population"] == 4 and seen["batches"] == fl.Batches(50, shuffle=False)
    assert seen["learning_rate"].clock == "step" and isinstance(seen["optimizer"](0.1), optax.GradientTransformation)
    assert isinstance(seen["aggregator"], fl.Aggregator) and isinstance(seen["server"], fl.Server) and seen["uplink"] is not None


MISTAKES = {
    "name": ((('"fedavg"', '"fedavvg"'),), r"tiny.toml:12: algorithm.name: unknown algorithm 'fedavvg'; did you mean 'fedavg'"),
    "key": ((('"fedavg"', '"fedavgm"\nmomentun = 1'),), r"tiny.toml:13: algorithm.momentun: unknown key; did you mean 'momentum'"),
    "type": ((('"fedavg"', '"fedavgm"\nnesterov = 1'),), r"tiny.toml:13: algorithm.nesterov: must be true or false, got 1"),
    "no mixing": ((('"fedavg"', '"dpsgd"'),), r'tiny.toml:11: algorithm: give mixing, such as \{ name = "ring" \}'),
    "no nodes": (
        (*of_name("dpsgd"), ("{ name = 'ring' }", "{ name = 'torus', rows = 3, columns = 2 }")),
        r"mixing must be .* = \[4, 4\], got \(6, 6",
    ),
    "no mixing matrix": ((*of_name("dpsgd"), ("{ name = 'ring' }", "[[1, 0], [0, 1]]")), r"tiny.toml:13: algorithm.mixing: .*got \(2, 2\)"),
    "no digest": ((('"fedavg"', '"fedmd"'),), r"tiny.toml:11: algorithm: give digest, such as \{ optimizer = "),
    "families": (OF_FAMILIES, r"tiny.toml:9: model.families: are several models, and fedavg trains one"),
    "aggregator": (
        (('"fedavg"', '"fd"'), ("[sampling]", '[aggregator]\nname = "mean"\n[sampling]')),
        r"tiny.toml:17: aggregator: fd brings its own: leave the section out",
    ),
    "server": ((("[sampling]", SECTIONS + "[sampling]"),), r"tiny.toml:19: server: fedavg brings its own"),
    "batches": ((('"fedavg"', '"fedsgd"'),), r"client.batch_size: fedsgd takes no such thing; of \[client\] it takes optimizer$"),
    "momentum in its steps": (
        (*of_name("fedsgd"), ("learning_rate = 0.1 }", "learning_rate = 0.1, momentum = 0.9 }")),
        r"client.optimizer: must be \{ name = \"sgd\", learning_rate = ... \} alone",
    ),
    "no optimizer": ((('optimizer = { name = "sgd", learning_rate = 0.1 }\n', ""),), r"client: give optimizer, such as"),
    "both": ((("[client]", "[distillation]\nsteps = 1\n[client]"),), r"distillation: is a way of its own beside \[algorithm\]"),
    "no public": ((*of_name("feddf"), ("public = 50\n", "")), r"data: distillation needs public examples"),
    "attack": (
        (("[sampling]", '[attack]\nname = "sign_flip"\nnum_byzantine = 1\n[sampling]'),),
        r"attack: stands before an aggregator: give \[aggregator\]",
    ),
    "no features": ((*of_name("fedgkt"), ('name = "mlp"\nhidden = [3]', 'name = "linear"')), r"model: has no features apart from its head"),
    "scheduled": (
        (*of_name("fedgkt"), ("learning_rate = 0.1 }", "learning_rate = { name = 'constant_schedule', value = 1 } }")),
        r"client.optimizer.learning_rate: can't be scheduled for this algorithm: give a number",
    ),
    "a loss that is not looked at": (
        (('"fedavg"', '"fd"'), ("hidden = [3]", "hidden = [3]\nignore = 3")),
        r"tiny.toml:11: model.ignore: is not looked at: fd has a loss of its own",
    ),
    "a student's loss": (
        (*of_name("dsfl"), ("hidden = [2] }", 'hidden = [2], loss = "squared" }')),
        r"algorithm.student.loss: is not looked at",
    ),
    "another section's": ((('"fedavg"', '"fedavg"\nlearning_rate = 5'),), r"algorithm.learning_rate: comes from another section"),
    "true for a rate": ((('"fedavg"', '"fedavg"\nserver_learning_rate = true'),), r"server_learning_rate: must be a number, or a schedule"),
    "a rate below 0": ((('"fedavg"', '"fedavg"\nserver_learning_rate = -1'),), r"server_learning_rate: must be finite and not negative"),
    "no round's": ((*of_name("fedmd"), ("each_round = 20", "each_round = 0")), r"tiny.toml:\d+: algorithm.each_round: public: each_round"),
    "generator": ((*of_name("fedgen"), ("{ hidden = 4 }", "3")), r"algorithm.generator: must be a table such as"),
    "what it refuses": ((('"fedavg"', '"fd"\ngamma = -1'),), r"tiny.toml:13: algorithm.gamma: fd: gamma must be at least 0, got -1"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(config, name):
    pairs, message = MISTAKES[name]
    with pytest.raises(ConfigError, match=message):
        build(config(*pairs))


@pytest.mark.parametrize("attack", ['"label_flip"', pytest.param('"sign_flip"', marks=pytest.mark.deep)])
def test_an_attack_stands_before_the_loss_and_the_aggregator(config, attack):
    """As it does where the sections compose the same: one client of four is Byzantine."""
    attacked = ("[sampling]", f'[aggregator]\nname = "weighted_mean"\n[attack]\nname = {attack}\nbyzantine = [1]\n[sampling]')
    server = '[server]\noptimizer = { name = "sgd", learning_rate = 1.0 }\n'
    named, spelt = (attacked,), (attacked, ('[algorithm]\nname = "fedavg"\n', server))
    found, expected = (after_a_round(config(*pairs))[0] for pairs in (named, spelt))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_the_list_shows_the_keys_that_no_other_section_gives(capsys):
    assert cli.main(["list", "algorithm"]) == 0
    text = capsys.readouterr().out
    others = "from other sections: optimizer, batches, learning_rate, aggregator, uplink\n"
    assert f"keys: server_learning_rate = 1.0, momentum = 0.9, nesterov = False; {others}" in text
    assert set(NAMES) <= set(text.split())


def test_a_run_of_it_has_its_public_examples_held_out(config):
    source = load_data(config(), 0)
    assert source.public.size.tolist() == [50] and source.test.size.tolist() == [100]
