"""Every method against the tables of reference values, round by round, on every engine.

A row: how the method is made of a problem's loss and batches, the problem, and the model after each round.
"""

import numpy as np
import optax
import pytest
import quadratics
from quadratics import A4, A4_RAGGED, A5, A5_RAGGED, trajectory

import fedjax_lite as fl

pytestmark = pytest.mark.usefixtures("x64")
MEAN, SGD = fl.aggregators.mean(), optax.sgd(0.1)
HEAVY, NESTEROV = optax.sgd(0.1, momentum=0.9), optax.sgd(0.1, momentum=0.9, nesterov=True)


def of(name, *optimizer, **more):
    """A function of the problem and the engine to the algorithm."""
    rate = {} if optimizer else {"learning_rate": 0.1}

    def make(problem, engine=None):
        return getattr(fl.algorithms, name)(
            quadratics.loss_fn, *optimizer, batches=quadratics.batches(problem), population=problem.population, engine=engine, **rate | more
        )

    return make


def of_two(*iterates):
    """The mean of each iterate with the one before, from 0."""
    each = np.array([(0, 0), *iterates])
    return (each[1:] + each[:-1]) / 2


TABLE = {
    "fedavg": (of("fedavg", SGD, aggregator=MEAN), A5, [
        (0.877075, 0.1131095313), (0.0350531347, 0.1002333626), (-0.1979150471, 0.4555256333), (0.4569119479, 0.5294813006),
    ]),
    "fedavg by examples": (of("fedavg", SGD), A5, [
        (1.157614, 0.18097525), (0.2511600458, 0.1807824195), (-0.3405391889, 0.6369264017), (0.0456960403, 0.605985143),
    ]),
    "fedavg ragged": (of("fedavg", SGD), A5_RAGGED, [
        (0.8188, 0.1141), (0.131088485, 0.1185718206), (-0.4412047479, 0.617985638), (-0.1209051738, 0.5932695821),
    ]),
    "fedavg momentum": (of("fedavg", HEAVY, aggregator=MEAN), A5, [
        (2.095, 0.2914220312), (-1.3198151917, 0.2275642603), (0.1582757892, 0.9598006891), (1.1672134085, 0.659700739),
    ]),
    "fedavg momentum all": (of("fedavg", HEAVY), A4, [
        (-0.2497066667, 0.1097733333), (-0.2172211559, 0.0607932038), (-0.2214473483, 0.0826478111),
    ]),
    "fedavg nesterov all": (of("fedavg", NESTEROV), A4, [
        (-0.0810901853, 0.3480091887), (-0.0774008084, 0.2684966216), (-0.0775686647, 0.2866635222),
    ]),
    "fedprox": (of("fedprox", SGD, mu=1.0), A5, [
        (0.954624, 0.14834525), (0.2951833097, 0.1606275428), (-0.2230745585, 0.5431474237), (0.0386817293, 0.5532481038),
    ]),
    "fedprox all": (of("fedprox", SGD, mu=1.0), A4, [
        (-0.1185066667, -0.0342266667),
    ]),
    "fedprox momentum": (of("fedprox", HEAVY, mu=1.0, aggregator=MEAN), A5, [
        (1.580625, 0.2260507813), (-0.4873173758, 0.2898123045), (-0.2320814405, 0.7937268723), (0.9530448781, 0.6891030371),
    ]),
    "fedprox momentum all": (of("fedprox", HEAVY, mu=1.0), A4, [
        (-0.1688466667, 0.1209933333), (-0.1947893062, 0.1132025726), (-0.1987752928, 0.1137042197),
    ]),
    "scaffold 1": (of("scaffold", option=1), A5, [
        (0.877075, 0.1131095313), (0.4019235514, 0.1339311335), (0.3019302412, -0.0261022832), (0.2110960893, -0.1304735346),
    ]),
    "scaffold 2": (of("scaffold"), A5, [
        (0.877075, 0.1131095313), (0.2924714313, 0.1307256751), (0.0638688322, 0.1778250479), (0.2696547671, 0.2122692746),
    ]),
    "scaffold 1 all": (of("scaffold", option=1), A4, [
        (-0.1408066667, -0.0344066667), (-0.3250897454, -0.2283622105),
    ]),
    "scaffold 2 all": (of("scaffold"), A4, [
        (-0.1408066667, -0.0344066667), (-0.2776686538, -0.1500649078),
    ]),
    "feddyn": (of("feddyn", alpha=0.1), A5, [
        (1.2040735455, 0.1552226536), (-0.0496741479, 0.1367259649), (-0.5299296258, 0.5972003094), (0.3229019611, 0.7573509423),
    ]),
    "feddyn all": (of("feddyn", alpha=0.1), A4, [
        (-0.2766232813, -0.0686418413), (-0.4220106973, -0.0894206121), (-0.4361925476, -0.0861152106),
    ]),
    "fednova": (of("fednova"), A5_RAGGED, [
        (0.7819466667, 0.1064933333), (-0.0070375418, 0.2666559811), (-0.320052924, 0.5812301239), (0.0233983629, 0.5766051331),
    ]),
    "fednova momentum": (of("fednova", momentum=0.9), A5_RAGGED, [
        (1.4536677509, 0.1941378253), (-1.8747716577, 0.8387749487), (-0.2069519641, 0.9219875677), (0.4441607585, 0.6435596928),
    ]),
    "fednova proximal": (of("fednova", mu=1.0), A5_RAGGED, [
        (0.7071850534, 0.0967487823), (0.1263877562, 0.2043333413), (-0.2074187138, 0.4938567313), (0.0413771115, 0.51772233),
    ]),
    "fednova proximal, released": (of("fednova", mu=1.0, tau_eff="steps"), A5_RAGGED, [
        (0.7771264323, 0.1063173432), (-0.0119698032, 0.2389997276), (-0.3291621693, 0.56746218), (0.0162766872, 0.5679022713),
    ]),
    "fednova all": (of("fednova"), A4_RAGGED, [
        (-0.1348402222, 0.1216608055), (-0.1928858036, 0.1602941301),
    ]),
    "fednova momentum all": (of("fednova", momentum=0.9), A4_RAGGED, [
        (-0.2471795495, 0.924651791), (-0.0787458837, 0.2198654719), (-0.1935203455, 0.7570663516),
    ]),
    "fednova proximal all": (of("fednova", mu=1.0), A4_RAGGED, [
        (-0.103078886, 0.0576347781), (-0.1625001082, 0.0845311482), (-0.1967542779, 0.0970828529),
    ]),
    "fednova proximal all, released": (of("fednova", mu=1.0, tau_eff="steps"), A4_RAGGED, [
        (-0.1400940876, 0.0783311886), (-0.1995462897, 0.0998841858), (-0.224776222, 0.10581454),
    ]),
    "fedadagrad all": (of("fedadagrad", SGD, server_learning_rate=0.1), A4, [
        (-0.0992923282, -0.0971358138), (-0.1537613605, -0.0322496484),
    ]),
    "fedadam all": (of("fedadam", SGD, server_learning_rate=0.1), A4, [
        (-0.0931521166, -0.0750967396), (-0.2166739135, -0.1061514582), (-0.3452808594, -0.0700746942),
    ]),
    "fedyogi all": (of("fedyogi", SGD, server_learning_rate=0.1), A4, [
        (-0.0931499339, -0.0750738694), (-0.2162683398, -0.1060516787), (-0.3439689387, -0.0702276356),
    ]),
    "mime": (of("mime", beta=0.9), A5, [
        (0.1639944824, 0.0196839661), (0.2568759595, 0.0335702668), (0.2309382326, 0.1089526895), (0.218293041, 0.2036177037),
    ]),
    "mime uniform": (of("mime", beta=0.9, aggregator=MEAN), A5, [
        (0.1213119396, 0.0121927619), (0.1599031018, 0.0017473149), (0.1309882745, 0.0406206653), (0.1722286121, 0.1046001046),
    ]),
    "mime all": (of("mime", beta=0.9), A4, [
        (-0.0323558004, -0.0318236394), (-0.0914763012, -0.0887439502), (-0.1703810271, -0.1619113251),
    ]),
    "mime without momentum all": (of("mime", beta=0.0), A4, [
        (-0.2531684722, -0.21694), (-0.362124825, -0.2691596274), (-0.4090164726, -0.2817294139),
    ]),
    "mimelite": (of("mimelite", beta=0.9), A5, [
        (0.1635287151, 0.0198009975), (0.2571008999, 0.0357058073), (0.2330954888, 0.1113786517), (0.2198268743, 0.2057381671),
    ]),
    "mimelite all": (of("mimelite", beta=0.9), A4, [
        (-0.0307520081, -0.0288691341), (-0.0884200641, -0.0832066674), (-0.166148032, -0.1544553848),
    ]),
    "fedexp": (of("fedexp", SGD), A5, of_two(
        (0.877075, 0.1131095313), (-0.0639491013, 0.0987194239), (-0.4476144026, 0.895309197), (0.3917499759, 0.7934156876),
    )),
    "fedexp released": (of("fedexp", SGD, convention="released", aggregator=fl.aggregators.weighted_mean()), A5, of_two(
        (1.157614, 0.18097525), (0.2511600458, 0.1807824195), (-0.3448744279, 0.6402684597), (0.564829591, 0.5642584969),
    )),
    "fedexp all": (of("fedexp", SGD), A4, of_two(
        (-2.5387955755, -0.6203647538), (-1.4375734641, -0.2403532898), (-0.7081523829, -0.0767569824),
    )),
    "qfedavg 1": (of("qfedavg", q=1.0), A5, [
        (0.2365963255, 0.0384275709), (0.1046687724, 0.0793702718), (-0.0560330191, 0.2221825041), (0.185477873, 0.2544645132),
    ]),
    "qfedavg 5": (of("qfedavg", q=5.0), A5, [
        (0.0587857804, 0.0098899132), (0.0184579017, 0.0448821222), (-0.0226752085, 0.0837516412), (0.036457035, 0.0927645616),
    ]),
    "qfedavg 0": (of("qfedavg", q=0.0), A5, [
        (0.877075, 0.1131095313), (0.0350531347, 0.1002333626), (-0.1979150471, 0.4555256333), (0.4569119479, 0.5294813006),
    ]),
    "qfedavg 1 all": (of("qfedavg", q=1.0), A4, [
        (-0.090804605, 0.0342853634),
    ]),
    "qfedavg 5 all": (of("qfedavg", q=5.0), A4, [
        (-0.038112725, 0.0349481420),
    ]),
    "agnostic_fedavg all": (of("agnostic_fedavg", SGD, gamma=0.1), A4, [
        (-0.1408066667, -0.0344066667), (-0.2719923962, -0.0022030038), (-0.3832843999, 0.0517639422),
    ]),
    "agnostic_fedavg projected all": (of("agnostic_fedavg", SGD, gamma=0.1, update="projected"), A4, [
        (-0.1408066667, -0.0344066667), (-0.390022007, 0.0756677604), (-0.6376179377, 0.2265006689),
    ]),
}  # fmt: skip
DEEPER = "mime uniform", "mimelite", "fedexp released", "qfedavg 5", "qfedavg 0"  # beside those of everyone
ENGINES = {"packed": fl.packed(2), "padded": fl.padded(), "sequential": fl.sequential()}


def check(name, engine):
    make, problem, expected = TABLE[name]
    found = trajectory(make(problem, ENGINES[engine]), problem, len(expected))[1]
    np.testing.assert_allclose(found, expected, atol=1.1e-9, rtol=0)  # the tables have ten digits


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.deep if " all" in name or name in DEEPER else ()) for name in TABLE])
def test_a_method_is_its_table(name):
    check(name, "packed")


@pytest.mark.deep
@pytest.mark.parametrize("engine", ["padded", "sequential"])
@pytest.mark.parametrize("name", TABLE)
def test_a_method_is_its_table_on_every_engine(name, engine):
    check(name, engine)
