"""The table [distillation]: what it becomes, and what is refused with the line and the remedy."""

import jax
import numpy as np
import pytest
from grouping import tiered
from tiny import after_a_round, edited

import fedjax_lite as fl
from fedjax_lite import distill
from fedjax_lite.configuration.build import build, parts
from fedjax_lite.configuration.data import load_data, outputs_of
from fedjax_lite.configuration.study import curves, study_of
from fedjax_lite.configuration.table import ConfigError

TEXT = """\
name = "tiny"
[data]
name = "digits"
partition = { name = "dirichlet", clients = 5, alpha = 1.0 }
test = 0
central_test = 100
public = 50
[model]
name = "mlp"
hidden = []
[client]
optimizer = { name = "sgd", learning_rate = 0.1 }
batch_size = 50
[sampling]
name = "everyone"
[aggregator]
name = "mean"
[distillation]
optimizer = { name = "adam", learning_rate = 1e-2 }
steps = 20
models = "weighted_mean"
student = { name = "mlp", hidden = [4] }
[engine]
name = "padded"
[run]
rounds = 2
evaluate_every = 1
"""
STUDENT, MODELS = 'student = { name = "mlp", hidden = [4] }\n', 'models = "weighted_mean"\n'
DIGEST = 'digest = { optimizer = { name = "sgd", learning_rate = 0.1 }, steps = 3 }\n'
QUICK = ["client.shuffle=false"]
FAMILIES = 'families = [{ name = "mlp", hidden = [], clients = 3 }, { name = "mlp", hidden = [3], clients = 2 }]\n'


@pytest.fixture
def config(tmp_path):
    """The text with pairs of it replaced, and overrides."""

    return lambda *replace, overrides=(): edited(tmp_path, TEXT, *replace, overrides=overrides)


# What may be said, and the bits that five clients send and receive in a round.
MODEL, SOFT = 32 * 650, 32 * 50 * 10
KINDS = {
    "models travel, their mean is taught": (((STUDENT, ""),), MODEL, MODEL),
    "soft labels up, the model that learnt them down": (((STUDENT, ""), (MODELS, "")), SOFT, MODEL),
    "models stay": (((MODELS, DIGEST + "each_round = 20\n"),), SOFT * 20 // 50, SOFT * 20 // 50),
    "weighed, robust": (
        ((MODELS, DIGEST + 'weigh = "class_counts"\nensemble = "mean_probabilities"\n'), ('name = "mean"', 'name = "median"')),
        SOFT + 32 * 10,
        SOFT,
    ),
}


@tiered("name", KINDS, ("models travel, their mean is taught",))
def test_what_travels(config, name):
    replace, up, down = KINDS[name]
    _, told = after_a_round(config(*replace, overrides=QUICK))
    assert told["uplink_bits"] == 5 * up
    assert told["downlink_bits"] == 5 * down and 0 <= told["student_accuracy"] <= 1 and 0 < told["teacher_accuracy"] < 1


def test_public_and_test_examples_are_held_out_in_their_numbers(config):
    source = load_data(config(), 0)
    assert source.test.size.tolist() == [100] and source.public.size.tolist() == [50] and int(source.train.size.sum()) == 1797 - 150
    shapes = jax.eval_shape(lambda: state_of(parts(config(), source, outputs_of(config(), source), 0)))
    assert [x.shape[0] for x in jax.tree.leaves(shapes.server.public.examples)] == [50]


def test_what_is_held_out_is_not_drawn_as_the_partition_is(config):
    """Not with the run's seed itself, which permutes as many examples when a data set is dealt out."""
    source, whole = load_data(config(), 3), load_data(config(("central_test = 100\npublic = 50\n", "")), 3)
    left, test = fl.data.hold_out(whole.train, 100, seed=3)
    for ours, theirs in ((source.test, test), (source.public, fl.data.hold_out(left, 50, seed=3)[1])):
        assert ours.size == theirs.size and not np.array_equal(ours.examples["x"], theirs.examples["x"])


def state_of(made):
    return made.algorithm.init(made.params, made.key)


def test_a_study_tells_of_teachers(config):
    source = load_data(config(), 0)
    found = jax.eval_shape(lambda: curves(parts(config(), source, outputs_of(config(), source), 0), source, rounds=2, every=1))
    names = {"test_accuracy", "teacher_accuracy", "ensemble_accuracy", "student_accuracy"}
    assert names <= set(found) and {found[name].shape for name in names} == {(2,)}


@pytest.mark.deep
def test_a_study_of_seeds_is_one_program(config):
    study = study_of(config(("[run]", "[grid]\nseeds = 2\n[run]"), overrides=QUICK))(progress=False)
    assert study.programs == 1
    assert np.shape(study.results["teacher_accuracy"])[-2:] == (2, 2)  # seeds, evaluations


def test_what_weighs_models_may_be_traced():
    """In a study each seed has clients and public examples of its own."""
    logits, client = np.eye(3, dtype=np.float32), fl.Client(1, None, 4, 0, 1.0)

    def weights(counts, labels):
        return distill.by_class_counts(counts)(logits, client), distill.by_accuracy(labels)(logits, client)

    given = np.array([[3, 0, 1], [1, 2, 0]], np.int32), np.array([0, 2, -1], np.int32)
    for found in (jax.jit(weights)(*given), weights(*given)):
        np.testing.assert_array_equal(found[0], [[1, 2, 0]])
        assert float(found[1]) == 0.5


def test_public_examples_of_another_kind(config):
    noise = load_data(config(("public = 50", 'public = { name = "noise", examples = 7, low = -1.0 }')), 0).public
    assert noise.examples["x"].shape == (7, 64) and "y" not in noise.examples
    assert -1 < float(noise.examples["x"].min()) < 0 < float(noise.examples["x"].max()) < 1
    with pytest.raises(ConfigError, match=r"data.public.*: public: 1707 of 1797 public examples are the test's"):
        whole = config(("central_test = 100", "central_test = 0.95"), ("public = 50", 'public = { name = "digits", test = 0 }'))
        load_data(whole, 0)


def test_held_out_examples_are_no_clients(config):
    source = load_data(config(), 0)
    rows = [np.asarray(part.examples["x"]).round(4) for part in source[:3]]
    whole = {row.tobytes() for row in rows[0]}
    assert sum(map(len, rows)) == 1797 and source.train.population == 5 and (np.asarray(source.train.size) > 0).all()
    # The digits hold a few images twice: apart from these no held-out one is a client's.
    assert sum(row.tobytes() in whole for part in rows[1:] for row in part) <= 3
    other = load_data(config(), 1)
    assert not np.array_equal(other.public.examples["x"], source.public.examples["x"])


MISTAKES = {
    "no public": (("public = 50\n", ""), r"data: distillation needs public examples: give public, a share"),
    "public share": (("public = 50", "public = 1.5"), r"tiny.toml:7: data.public: .*share must be a fraction in \(0, 1\)"),
    "too many public": (
        ("public = 50", "public = 1797"),
        r"tiny.toml:7: data.public: .*share=1797 is 1797 of 1697 examples, of which 1692",
    ),
    "public name": (("public = 50", 'public = { name = "nose" }'), r"data.public.name: unknown data 'nose'"),
    "no table": (("[distillation]", "[distillation.x]"), r"distillation.x: unknown key|give optimizer"),
    "no steps": (("steps = 20\n", ""), r"tiny.toml:18: distillation: give steps"),
    "steps 0": (("steps = 20", "steps = 0"), r"tiny.toml:20: distillation.steps: .*at least 1, got 0"),
    "rate 0": (("1e-2 }", "0.0 }"), r"distillation.optimizer: lessons: the optimizer moves nothing in 20 steps"),
    "clock": (
        ("learning_rate = 1e-2", 'learning_rate = { name = "constant_schedule", value = 1.0, clock = "round" }'),
        r"unknown clock 'round'.*step",
    ),
    "ensemble": (
        ("steps = 20", 'steps = 20\nensemble = "mean_logit"'),
        r"tiny.toml:21: distillation.ensemble.name: unknown ensemble 'mean_logit'; did you mean 'mean_logits'",
    ),
    "temperature": (("steps = 20", "steps = 20\ntemperature = 0.0"), r"distillation.temperature: .*temperature must be"),
    "sharpened": (("steps = 20", 'steps = 20\nensemble = { name = "sharpened", temperature = 2.0 }'), r"temperature must be at most 1"),
    "weigh": (
        ("steps = 20", 'steps = 20\nweigh = "size"'),
        r"distillation.weigh: must be one of certainty, class_counts, accuracy, got 'size'",
    ),
    "sharpened weigh": (
        ("steps = 20", 'steps = 20\nensemble = "sharpened"\nweigh = "certainty"'),
        r"distillation.weigh: is for mean_logits and mean_probabilities",
    ),
    "both": ((MODELS, MODELS + DIGEST), r"distillation.digest: is for models that stay with their clients: leave it or models out"),
    "neither": ((MODELS, ""), r"distillation: clients would learn nothing from each other: give models"),
    "digest alone": ((STUDENT + "[engine]", DIGEST + "[engine]"), r"digest|give student"),
    "fresh": (("steps = 20", "steps = 20\nfresh = 1"), r"distillation.fresh: must be true or false, got 1"),
    "each_round": (("steps = 20", "steps = 20\neach_round = 51"), r"each_round=51 is more than the 50 public examples"),
    "accuracy of some": (
        ("steps = 20", 'steps = 20\neach_round = 20\nweigh = "accuracy"'),
        r"distillation.weigh: \"accuracy\" needs labels of the public examples, and all of them",
    ),
    "key": (("steps = 20", "steps = 20\nstudnet = 3"), r"distillation.studnet: unknown key; did you mean 'student'"),
    "families sum": (
        ('name = "mlp"\nhidden = []\n', FAMILIES.replace("clients = 2", "clients = 3")),
        r"model.families: have 6 clients, the data 5: make them equal",
    ),
    "families alone": (("hidden = []\n", FAMILIES), r"model.families: must be a list of models with their clients"),
    "families clients": (('name = "mlp"\nhidden = []\n', FAMILIES.replace(", clients = 2", "")), r"model.families\[1\]: give clients"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_refused(config, name):
    replace, message = MISTAKES[name]
    with pytest.raises(ConfigError, match=message) as caught:
        build(config(replace))
    assert "\n" not in str(caught.value)


def test_sections_that_nothing_uses_are_refused(config):
    server = '[server]\noptimizer = { name = "sgd", learning_rate = 1.0 }\n'
    with pytest.raises(ConfigError, match="server: changes the clients' models, which do not travel here"):
        build(config((MODELS, DIGEST), ("[engine]", server + "[engine]")))
    whole = TEXT[TEXT.index("[distillation]") : TEXT.index("[engine]")]
    with pytest.raises(ConfigError, match=r"model.families: their weights are not alike, so nothing but \[distillation\]"):
        build(config((whole, server), ('name = "mlp"\nhidden = []\n', FAMILIES)))
    with pytest.raises(ConfigError, match="server: this section is missing"):
        config((whole, ""))


@pytest.mark.deep
def test_byzantine_clients_and_privacy_in_a_configuration(config):
    attacked = build(config(("[engine]", '[attack]\nname = "sign_flip"\nnum_byzantine = 1\n[engine]')))
    assert attacked.args[0].privacy is None
    private = '"dp_mean"\nclip = 5.0\nnoise_multiplier = 2.0\nclients_per_round = 5'
    built = build(config((STUDENT, ""), (MODELS, 'ensemble = "mean_probabilities"\n'), ('"mean"', private)))
    assert built.args[0].privacy.noise_multiplier == 2
    with pytest.raises(ConfigError, match="soft labels can't be private where models travel"):
        build(config(('name = "mean"', f"name = {private}")))


def test_class_counts_are_those_of_a_loop():
    data = fl.data.digits(fl.partition.dirichlet(4, 0.5), seed=1).train
    counts = fl.data.class_counts(data, 12)
    for k in range(4):
        np.testing.assert_array_equal(counts[k], np.bincount(np.asarray(data.client(k)["y"]), minlength=12))
    with pytest.raises(ValueError, match='class_counts: the data has no whole numbers "y"'):
        fl.data.class_counts(fl.FederatedData.from_clients([{"x": np.ones(3)}]))


def test_a_model_is_shown_a_few_examples_at_a_time():
    """As many at a time as is said, and the same of all together; the last group may be smaller."""
    seen = []

    def apply(params, batch, key):
        seen.append(len(batch["x"]))
        return batch["x"] @ params

    examples, params = {"x": np.random.default_rng(0).normal(size=(11, 3)).astype(np.float32)}, jax.numpy.eye(3)
    for at_once, expected in ((4, {4, 3}), (11, {11}), (1, {1})):
        seen.clear()
        uplink = distill.soft_labels(apply, examples, distill.mean_logits(), at_once=at_once)
        state = uplink.init(params)
        seen.clear()
        said = uplink.update(params, state, (), client=fl.Client(0, None, 1, 0, 1.0))[0].soft
        np.testing.assert_allclose(said, examples["x"], atol=1e-6)
        assert set(seen) == expected
