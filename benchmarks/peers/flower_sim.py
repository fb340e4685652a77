"""Four clients, ten rounds of FedAvg in Flower's own simulation, of a job that does nothing.

Run by `bench_peers.py` with a Python that has flwr[simulation]; argument: the rounds.
"""

import sys

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

PARAMETERS = 3_713  # of a network of 24-64-32-1
client, server = ClientApp(), ServerApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    """Give the parameters back moved."""
    del context
    arrays = [
        array + 0.001 for array in message.content.array_records["arrays"].to_numpy_ndarrays()
    ]
    content = RecordDict(
        {"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": 1})}
    )
    return Message(content, reply_to=message)


@client.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Nothing to say."""
    del context
    metrics = MetricRecord({"num-examples": 1, "loss": 0.0})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Ten rounds."""
    del context
    start = [np.zeros(PARAMETERS, dtype=np.float32)]
    FedAvg(fraction_evaluate=0.0, min_available_nodes=4).start(
        grid=grid, initial_arrays=ArrayRecord(start), num_rounds=int(sys.argv[1])
    )


run_simulation(server, client, num_supernodes=4)
