"""Four clients, ten rounds of FedAvg in NVIDIA FLARE's simulator, of a job that does nothing.

Run by `bench_peers.py` with a Python that has nvflare; arguments: a folder, then the rounds.
"""

import sys
from pathlib import Path

import numpy as np
from nvflare.app_common.np.np_model_persistor import NPModelPersistor
from nvflare.app_common.workflows.fedavg import FedAvg
from nvflare.client.config import ExchangeFormat
from nvflare.job_config.api import FedJob
from nvflare.job_config.script_runner import FrameworkType, ScriptRunner

PARAMETERS = 3_713  # of a network of 24-64-32-1
CLIENTS = 4

folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
job = FedJob(name="trivial")
persistor = NPModelPersistor(model=np.zeros(PARAMETERS, dtype=np.float32).tolist())
placed = job.to_server(persistor, id="persistor")
job.to_server(FedAvg(num_clients=CLIENTS, num_rounds=rounds, persistor_id=placed))
for number in range(CLIENTS):
    job.to(
        ScriptRunner(
            script=str(Path(__file__).with_name("flare_client.py")),
            framework=FrameworkType.NUMPY,
            server_expected_format=ExchangeFormat.NUMPY,
        ),
        f"site-{number + 1}",
    )
job.simulator_run(str(folder), threads=CLIENTS)
