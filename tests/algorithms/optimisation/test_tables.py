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
PROXIMAL = fl.gradient_term(lambda y, shared, own: y - shared.params)  # in place of fedprox's, to stand behind the momentum
A4_OFF, A5_OFF = (problem._replace(start=(0.33, 0.77)) for problem in (A4, A5))  # at 0 some signs are rounding's
A4_AT_ONE = A4._replace(start=(1.0, 1.0))
ADAMW, ADAMW_95 = optax.adamw(0.05, weight_decay=0.1), optax.adamw(0.05, b2=0.95, weight_decay=0.1)
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
    "fedprox after momentum all": (of("fedavg", optax.chain(optax.trace(0.9), PROXIMAL, optax.scale(-0.1))), A4, [
        (-0.2161266667, 0.0935133333), (-0.2205010479, 0.0696552766), (-0.2205895849, 0.0757421826),
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
    "fedcm": (of("fedcm", alpha=0.1), A5, [
        (0.1205841783, 0.0123756234), (0.1567567488, 0.0050424768), (0.1270004222, 0.0472815151), (0.168300978, 0.112811487),
    ]),
    "fedcm all": (of("fedcm", alpha=0.1), A4, [
        (-0.0307520081, -0.0288691341), (-0.0861650013, -0.0793708566), (-0.1591502277, -0.1429097105),
    ]),
    "fedcm 0.5 all": (of("fedcm", alpha=0.5), A4, [
        (-0.1100252083, -0.0732939583), (-0.2346287722, -0.1439019145), (-0.3281044003, -0.18265094),
    ]),
    "mofedsam": (of("fedcm", rho=0.05), A5, [
        (0.1241916298, 0.0124548091), (0.1601962163, 0.0032291746), (0.1281557155, 0.0445734945), (0.1682749597, 0.1105823265),
    ]),
    "mofedsam all": (of("fedcm", rho=0.05), A4, [
        (-0.0318664261, -0.03147946), (-0.0892436173, -0.0863970162), (-0.1647278962, -0.1552183071),
    ]),
    "fedsam": (of("fedsam", SGD, aggregator=MEAN), A5, [
        (0.903780733, 0.1141524604), (0.0258931337, 0.093411992), (-0.2038775671, 0.4576117638), (0.4575688764, 0.533242407),
    ]),
    "fedsam all": (of("fedsam", SGD), A4, [
        (-0.1420374954, -0.044611402), (-0.2134311393, -0.0583265759), (-0.2492938196, -0.0624111991),
    ]),
    "fedspeed": (of("fedspeed", rho=0.05), A5, [
        (1.2407410674, 0.1566474793), (-0.0689210983, 0.1249053568), (-0.550456749, 0.5957308889), (0.3336678957, 0.7385017331),
    ]),
    "fedspeed cohort": (of("fedspeed", rho=0.05, dual_mean="cohort"), A5, [
        (1.7724872392, 0.2237821132), (-0.871167573, 0.0449864499), (-1.1065074587, 1.1499885016), (1.3671330095, 0.9148312412),
    ]),
    "fedspeed all": (of("fedspeed", rho=0.05), A4, [
        (-0.2792096476, -0.0887305571), (-0.4221225494, -0.1090554474), (-0.4326294677, -0.1000207873),
    ]),
    "fedspeed half all": (of("fedspeed", rho=0.05, a=0.5), A4, [
        (-0.278067983, -0.0787262159), (-0.4223616821, -0.0994648917), (-0.4347248264, -0.093328053),
    ]),
    "fedadmm": (of("fedadmm", rho=1.0), A5, [
        (1.4454, 0.1854315625), (0.990996314, 0.2610149841), (0.8397976528, 0.3590819293), (0.8417485276, 0.531402993),
    ]),
    "fedadmm released": (of("fedadmm", rho=1.0, form="released"), A5, [
        (1.4454, 0.1854315625), (-0.454403686, 0.0755834216), (-0.0658958612, 0.4755225541), (0.8452297779, 0.4712922147),
    ]),
    "fedadmm all": (of("fedadmm", rho=1.0), A4, [
        (-0.2370133333, -0.0684533333), (-0.3698455117, -0.1456817651), (-0.4245267036, -0.1969883435),
    ]),
    "fedadmm all, released": (of("fedadmm", rho=1.0, form="released"), A4, [
        (-0.2370133333, -0.0684533333), (-0.251338845, -0.1114550984), (-0.2762044602, -0.1450435255),
    ]),
    "fedlion": (of("fedlion", learning_rate=0.03), A5_OFF, [
        (0.48, 0.77), (0.43, 0.72), (0.43, 0.72), (0.43, 0.57),
    ]),
    "fedlion all": (of("fedlion", learning_rate=0.03), A4_OFF, [
        (0.28, 0.72), (0.23, 0.67), (0.14, 0.54),
    "diloco": (of("diloco", ADAMW), A4_AT_ONE, [
        (0.7495194572, 0.8578302471), (0.4858016304, 0.6637043354), (0.2105757255, 0.4354463900),
    ]),
    "diloco reset all": (of("diloco", ADAMW, keep_optimizer=False), A4_AT_ONE, [
        (0.7495194572, 0.8578302471), (0.5045858350, 0.6599857864), (0.2238861466, 0.4166949176),
    ]),
    "diloco betas .9 .95 all": (of("diloco", ADAMW_95), A4_AT_ONE, [
        (0.7491700217, 0.8576460762), (0.4787931707, 0.6613059807), (0.1858417953, 0.4255519718),
    ]),
}  # fmt: skip
# name -> of the state after each round, a part and the values that it should have.
STATES = {
    "scaffold 1": [
        (lambda state: state.server.control, [
            (-1, -0.1), (0.627075, 0.2970423906), (0.4223688411, 0.3547791645), (0.37059751, 0.3104053918),
        ]),
        (lambda state: state.own.control[-1], [
            (-0.5980764486, 0.2678622669), (4.2057706542, -1.8660688665), (0.4385375, 4.452438125), (-3.3961395176, -0.5130511416),
            (1.2028953618, -0.7891534248),
        ]),
    ],
    "scaffold 2": [
        (lambda state: state.server.control, [
            (-0.70166, -0.090487625), (0.4208602824, -0.0573344227), (0.4353982488, -0.0720801518), (0.0966102014, -0.0708034725),
        ]),
        (lambda state: state.own.control[-1], [
            (-0.8038735819, 0.1945663154), (3.4932387537, -1.7973195425), (0.4635666989, 2.1018702396), (-3.6272939821, -0.4081643705),
            (0.957413118, -0.4449700044),
        ]),
    ],
    "feddyn": [
        (lambda state: state.server.dual, [
            (-0.0344021013, -0.004434933), (0.0255142252, -0.0020782073), (0.0319460316, -0.0146408436), (-0.0015480227, -0.0150334778),
        ]),
        (lambda state: state.own.dual[-1], [
            (-0.0806723785, 0.0090147252), (0.2526235483, -0.145886335), (0.0266999273, 0.1046471199), (-0.2943237932, -0.0301231814),
            (0.0879325825, -0.0128197177),
        ]),
    ],
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
DEEPER = "mime uniform", "fedexp released", "qfedavg 5", "qfedavg 0"  # beside those of everyone
ENGINES = {"packed": fl.packed(2), "padded": fl.padded(), "sequential": fl.sequential()}


def check(name, engine):
    make, problem, expected = TABLE[name]
    states, found, _ = trajectory(make(problem, ENGINES[engine]), problem, len(expected))
    for actual, rows in [(found, expected), *((part(states), rows) for part, rows in STATES.get(name, []))]:
        np.testing.assert_allclose(actual, rows, atol=1.1e-9, rtol=0)  # the tables have ten digits


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.deep if " all" in name or name in DEEPER else ()) for name in TABLE])
def test_a_method_is_its_table(name):
    check(name, "packed")


@pytest.mark.deep
@pytest.mark.parametrize("engine", ["padded", "sequential"])
@pytest.mark.parametrize("name", TABLE)
def test_a_method_is_its_table_on_every_engine(name, engine):
    check(name, engine)
