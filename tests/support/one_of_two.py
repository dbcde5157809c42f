"""One of two processes that are one set of devices: `python one_of_two.py PROCESS PORT NAMES [OUT STORE ROUNDS ROWS]`.

A round of each of the algorithms NAMES, which stand between commas, over both processes, each with the examples of its own clients, must
be that of one process. Then a store is streamed into OUT, from the checkpoint there on, what clients keep on the `device` or on the `host`;
the clients whose examples this process read are printed.
"""

import os
import sys
from functools import partial

import jax

import fedjax_lite as fl
from fedjax_lite.engine.placement import everywhere, mesh_of


def contract(names):
    """Compare algorithms; the cohort has an empty slot and a client without examples."""
    import numpy as np
    from contract.groups import ALGORITHMS
    from contract.population import assert_close, contract_data
    from problems import dealt, softmax_params

    from fedjax_lite.checks.trial import cohort_of

    data = contract_data()
    for name in names:
        built = ALGORITHMS[name](None)
        state = jax.jit(built.init)(softmax_params(), jax.random.key(0))
        who = jax.numpy.array([2, 0, 6, 5, 1]), jax.numpy.array([1.0, 1, 0, 1, 1])
        cohort = cohort_of(built, fl.round_key(state), data.size, state.round, *who)
        with jax.set_mesh(mesh_of(jax.devices())):
            together = jax.jit(partial(built.round))(everywhere(state), dealt(data, cohort.id), everywhere(cohort))
        local = jax.tree.map(lambda x: x.addressable_data(0), together)
        assert np.isfinite(local[1]["loss"])
        if jax.process_index() == 0:
            assert_close(local, jax.jit(built.round)(state, data, cohort))
        print("agrees:", name)


def run(out, store, rounds, rows):
    """Stream the store."""
    from streamed import SAMPLERS, trained

    seen, read = set(), fl.data.Store.read

    def noted(self, ids, rows=None):
        seen.update(ids[ids < self.population].tolist())
        return read(self, ids, rows)

    fl.data.Store.read = noted
    with jax.set_mesh(mesh_of(jax.devices())):
        options = {"rounds": int(rounds), "loss_fn": None, "out": out, "resume": True, "own_on_host": rows == "host"}
        result = trained(fl.data.Store.open(store), SAMPLERS["uniform"], **options)
    print("read:", sorted(seen), "loss:", result.history[-1]["loss"])


if __name__ == "__main__":
    process, port, names, *streaming = sys.argv[1:]
    os.environ["XLA_FLAGS"] = os.environ["XLA_FLAGS"].replace("--xla_force_host_platform_device_count=8", "")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 1)
    fl.join_hosts(f"127.0.0.1:{port}", 2, int(process), timeout=60)
    if names:
        with jax.enable_x64(True):
            contract(names.split(","))
    if streaming:
        run(*streaming)
