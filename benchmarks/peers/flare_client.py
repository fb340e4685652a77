"""A trivial client for NVIDIA FLARE's simulator: a network's parameters come, and go back moved."""

import nvflare.client as flare
from nvflare.app_common.abstract.fl_model import FLModel

flare.init()
while flare.is_running():
    model = flare.receive()
    if model is None:
        break
    moved = {name: array + 0.001 for name, array in model.params.items()}
    flare.send(FLModel(params=moved, metrics={"loss": 0.0}, meta={"NUM_STEPS_CURRENT_ROUND": 1}))
