"""Outside every brand: all Flower lives here, and nothing that could open a row."""

import os

# Flower reads these when it is first imported: it would otherwise report each start to its makers
# and ask an index for updates. Every module that imports Flower is below this package or above it.
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
