"""
A campaign on a dask cluster
============================

Two workers on this machine compute barriers of Cu-Ni into one store. One of them is killed after a while: dask starts
another and gives it the searches that were lost. A second run finds everything in the store and computes nothing. On a
real cluster only the line that makes the cluster changes. Needs ``pip install 'ase-kinoson[dask]'``; takes about half a
minute on two cores.
"""

import logging
import os
import signal
import time
from threading import Timer

import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.db.core import T2000, YEAR, connect
from distributed import Client, LocalCluster

import ase_kinoson as ak

N_STATES, N_WORKERS, KILL_AFTER_S = 12, 2, 6.0
STORE = "dask_campaign.db"

if __name__ == "__main__":  # workers are processes, which import this file
    alloy = ak.Alloy.from_atoms(bulk("Cu", cubic=True, a=3.57), {"Cu": {"Cu": 0.7, "Ni": 0.3}})
    cell = alloy.supercell(2)
    jumps, states = ak.JumpNetwork.from_supercell(cell), ak.sample_states(cell, N_STATES, seed=1)
    quiet = {"silence_logs": logging.CRITICAL, "dashboard_address": None}
    with LocalCluster(n_workers=N_WORKERS, threads_per_worker=1, **quiet) as cluster, Client(cluster) as client:
        workers = list(client.run(os.getpid).values())
        killer = Timer(KILL_AFTER_S, os.kill, (workers[0], signal.SIGKILL))
        start = time.time()
        killer.start()
        barriers = ak.compute_barriers(states, jumps, EMT, store=STORE, executor=client.get_executor())
        killer.cancel()
        now = set(client.run(os.getpid).values())
        print(f"{len(set(workers) - now)} of {len(workers)} workers died; {barriers}")
    again = ak.compute_barriers(states, jumps, EMT, store=STORE)  # without a cluster: nothing is left to do
    print("rows computed again:", again.settings["cost"]["computed_now"])
    assert np.array_equal(again.barrier, barriers.barrier, equal_nan=True)

    # when each result was written; ase.db counts years since 2000
    written = np.array(sorted(row.ctime for row in connect(STORE).select(kind="jump"))) * YEAR + T2000 - start
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    left.step([0.0, *written], np.arange(len(written) + 1), where="post")
    left.axvline(KILL_AFTER_S, color="C3", linestyle=":", label="a worker is killed")
    left.set(xlabel="time (s)", ylabel="searches in the store", ylim=(0, None))
    left.legend(frameon=False)
    own = [barriers.barrier[barriers.valid & (barriers.moving_species == k)] for k in (1, 2)]
    right.hist(own, bins=16, stacked=True, label=cell.species[1:])
    right.set(xlabel="barrier (eV)", ylabel="jumps")
    right.legend(title="jumping atom", frameon=False)
    fig.savefig("dask_campaign.png", dpi=150)
